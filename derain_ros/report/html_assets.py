"""Style and script of the report; both are named by their hash in its security policy."""

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --soft: #57606a;
  --line: #d0d7de; --panel: #f6f8fa; --accent: #0a5bb5; --loss: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181d; --text: #e4e8ec; --soft: #a3adb8; --line: #39424c;
    --panel: #1d2329; --accent: #6cb1ff; --loss: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 76rem; background: var(--ground);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.25rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; max-width: 50rem; } .soft { color: var(--soft); }
code { overflow-wrap: anywhere; }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.scroll { overflow-x: auto; } details .scroll { max-height: 40rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .25rem; }
th, td { padding: .3rem .75rem .3rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th[scope=row], td.note, th.note { text-align: left; } th + .note, td + .note {
  padding-left: 1rem; }
small { display: block; max-width: 14rem; margin-left: auto; color: var(--soft);
  white-space: normal; overflow-wrap: anywhere; }
th[scope=row] { font-weight: 600; white-space: normal; overflow-wrap: anywhere;
  min-width: 8.5rem; }
td.note { white-space: normal; color: var(--soft); min-width: 18rem; }
thead th { white-space: normal; overflow-wrap: anywhere; min-width: 4.5rem; }
summary { cursor: pointer; padding: .25rem 0; }
svg { display: block; width: 100%; max-width: 46rem; height: auto; margin: .5rem 0; }
svg text { fill: var(--text); font: 13px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg .point { fill: var(--accent); }
svg .bad { fill: var(--loss); }
svg .ring { fill: var(--ground); stroke: var(--text); stroke-width: 1.5; }
svg .input { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 6 4; }
svg .gain { stroke: var(--accent); stroke-width: 2; }
svg .loss { stroke: var(--loss); stroke-width: 2; }
article { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem; margin: 0 0 1.25rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1rem; align-items: start; }
figure { margin: 0; width: fit-content; max-width: 100%; }
figcaption { color: var(--soft); font-size: .9rem; }
img { display: block; width: auto; height: auto; max-width: 100%; max-height: 85vh; }
.compare { position: relative; width: fit-content; max-width: 100%; cursor: ew-resize;
  touch-action: pan-y; user-select: none; }
.compare .over { position: absolute; inset: 0; width: 100%; height: 100%;
  clip-path: inset(0 calc(100% - var(--at, 50%)) 0 0); }
.compare::after { content: ""; position: absolute; inset-block: 0; left: var(--at, 50%);
  width: 2px; margin-left: -1px; background: #fff; box-shadow: 0 0 0 1px #000;
  pointer-events: none; }
.compare .mask { display: none; } .compare.masked .mask { display: block; }
.controls { display: flex; flex-wrap: wrap; gap: 0 1.25rem; justify-content: space-between; }
.controls label { min-height: 1.75rem; display: inline-flex; align-items: center; gap: .4rem; }
.slide { margin: .4rem 0 0; min-height: 1.5rem; display: block; }
.slide, .controls, figcaption { width: 0; min-width: 100%; }
input { accent-color: var(--accent); }
@media print { .controls { display: none; } article { break-inside: avoid; } }
"""

SCRIPT = """
for (const article of document.querySelectorAll('article')) {
  const box = article.querySelector('.compare');
  const slider = article.querySelector('input[type=range]');
  const mask = article.querySelector('input[type=checkbox]');
  const show = () => {
    box.style.setProperty('--at', slider.value + '%');
    box.classList.toggle('masked', mask?.checked ?? false);
    slider.setAttribute('aria-valuetext', slider.value + ' % rainy');
  };
  const follow = event => {
    const area = box.getBoundingClientRect();
    slider.value = Math.round(100 * (event.clientX - area.left) / area.width);
    show();
  };
  box.addEventListener('pointerdown', event => {
    event.preventDefault();
    box.setPointerCapture(event.pointerId);
    follow(event);
  });
  box.addEventListener('pointermove', event => { if (event.buttons) follow(event); });
  slider.addEventListener('input', show);
  mask?.addEventListener('change', show);
  show();
}
"""
