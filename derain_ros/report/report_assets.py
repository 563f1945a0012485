"""What style and script of the report add to those of the page of ``derain evaluate``."""

from derain_ros.report.html_assets import SCRIPT as _COMMON_SCRIPT
from derain_ros.report.html_assets import STYLE as _COMMON_STYLE

STYLE = _COMMON_STYLE + """
:root { --c0: #0a5bb5; --c1: #b8480a; --c2: #1a7f37; --c3: #7b3fd0; --c4: #7d5400;
  --c5: #b0277a; --good: #1a6f33; }
@media (prefers-color-scheme: dark) { :root { --c0: #6cb1ff; --c1: #ffa657; --c2: #56d364;
  --c3: #d2a8ff; --c4: #e3b341; --c5: #ff9bce; --good: #56d364; } }
h3 { margin: 1.5rem 0 .25rem; } h4 { font-size: 1rem; margin: 0; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .25rem; scroll-margin-top: 1rem; }
.skip, .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }
.skip:focus { position: fixed; inset: .5rem auto auto .5rem; width: auto; height: auto;
  clip-path: none; z-index: 9; background: var(--ground); padding: .5rem 1rem; }
main:focus { outline: none; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0;
  margin: .5rem 0 0; }
nav a { display: inline-block; padding: .25rem 0; }
.trouble { border: 1px solid var(--loss); border-radius: .5rem; padding: .25rem 1rem .5rem;
  margin: 1rem 0; }
.trouble h2 { font-size: 1rem; margin: .25rem 0; border: 0; color: var(--loss); }
.trouble ul, .facts, .notes { margin: .25rem 0; padding-left: 1.25rem; }
.trouble li, .facts li, .notes li { overflow-wrap: anywhere; margin: .2rem 0; }
.facts { list-style: none; padding: 0; font-size: .9rem; }
.notes { color: var(--loss); margin-bottom: 1rem; }
td, thead th + th { padding-left: .5rem; }
table { margin: .25rem 0 .75rem; } caption { padding-top: .1rem; }
thead th { vertical-align: bottom; overflow-wrap: break-word; }
thead th.run { overflow-wrap: anywhere; min-width: 10rem; }
th[scope=row], td.name, td.name code { overflow-wrap: break-word; max-width: 20rem; }
@media (max-width: 40rem) { table { font-size: .9rem; } th, td { padding-right: .5rem; }
  th[scope=row] { min-width: 6rem; } thead th.run { min-width: 6.2rem; } }
.titled caption { position: absolute; clip-path: inset(50%); }
td.name { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
th.note, td.name { padding-left: .25rem; padding-right: 1rem; }
th + .note, td + .note { padding-left: .25rem; } th.note:first-child { padding-left: 0; }
small { font-weight: 400; font-size: .8rem; } th[scope=row] small.start { margin-left: 0; }
small.better { color: var(--good); } small.worse { color: var(--loss); }
.patch { display: inline-block; width: .7em; height: .7em; border-radius: 2px;
  margin-right: .4em; background: currentColor; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.plots { display: grid; gap: .5rem 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }
.plot { width: auto; margin: .75rem 0 0; min-width: 0; }
.plot h4 { margin: 0 0 .15rem; } .plot svg { max-width: 38rem; margin: .25rem 0; }
.plot details { max-width: 38rem; } .plot details .scroll { max-height: 22rem; }
.plot svg text { font-size: 14px; }
@media (max-width: 40rem) { .plot svg text { font-size: 18px; } }
svg .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
svg .spot { fill: currentColor; }
svg .d1 { stroke-dasharray: 7 4; } svg .d2 { stroke-dasharray: 2 3; }
svg .d3 { stroke-dasharray: 9 3 2 3; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; padding: 0;
  margin: 0; font-size: .9rem; }
.legend li, .figures li { overflow-wrap: anywhere; }
svg.key { display: inline-block; width: 28px; height: 10px; margin: 0 .4rem 0 0;
  vertical-align: middle; }
.figures { list-style: none; padding: 0; margin: .15rem 0 .6rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.figures b { color: var(--text); font-weight: 600; }
.stack { display: grid; } .stack img { grid-area: 1 / 1; visibility: hidden; }
.stack .right { visibility: visible; }
.stack .left { visibility: visible; z-index: 1;
  clip-path: inset(0 calc(100% - var(--at, 50%)) 0 0); }
.stack .left.right { clip-path: none; }
.stack::after { z-index: 2; }
select { font: inherit; max-width: 12rem; color: var(--text); background: var(--ground);
  border: 1px solid var(--soft); border-radius: .3rem; padding: .1rem .3rem; }
.besides { display: grid; gap: 1rem; grid-template-columns:
  repeat(auto-fit, minmax(min(14rem, 100%), 1fr)); }
@media (min-width: 50rem) { .views .pair:has(.besides) {
  grid-template-columns: fit-content(66%) minmax(0, 1fr); }
  .besides { grid-template-columns: 1fr; } }
.views .controls { gap: .35rem 1.25rem; justify-content: flex-start; margin-top: .25rem; }
"""

SCRIPT = _COMMON_SCRIPT + """
for (const article of document.querySelectorAll('article.views')) {
  const box = article.querySelector('.compare');
  const slider = article.querySelector('input[type=range]');
  const mask = article.querySelector('input[type=checkbox]');
  const [left, right] = article.querySelectorAll('select');
  for (const image of article.querySelectorAll('.beside img')) box.append(image.cloneNode());
  const views = [...box.querySelectorAll('img')];
  const tinted = views.map(image => image.dataset.view).filter(view => view.startsWith('mask-'));
  const seen = (side, other) => {
    if (!mask?.checked || side.value !== 'rainy') return side.value;
    return tinted.includes('mask-' + other.value) ? 'mask-' + other.value : tinted[0];
  };
  const name = side => side.selectedOptions[0].text;
  const arrange = () => {
    if (mask) mask.disabled = left.value !== 'rainy' && right.value !== 'rainy';
    for (const image of views) {
      image.classList.toggle('left', image.dataset.view === seen(left, right));
      image.classList.toggle('right', image.dataset.view === seen(right, left));
    }
    slider.setAttribute('aria-valuetext',
                        `${slider.value} % ${name(left)}, then ${name(right)}`);
  };
  for (const input of [slider, left, right]) input.addEventListener('input', arrange);
  mask?.addEventListener('change', arrange);
  box.addEventListener('pointerdown', arrange);
  box.addEventListener('pointermove', event => { if (event.buttons) arrange(); });
  arrange();
}
"""
