for (const article of document.querySelectorAll('article')) {
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
    box.style.setProperty('--at', slider.value + '%');
    slider.setAttribute('aria-valuetext',
                        `${slider.value} % ${name(left)}, then ${name(right)}`);
  };
  const follow = event => {
    const area = box.getBoundingClientRect();
    slider.value = Math.round(100 * (event.clientX - area.left) / area.width);
    arrange();
  };
  for (const input of [slider, left, right]) input.addEventListener('input', arrange);
  mask?.addEventListener('change', arrange);
  box.addEventListener('pointerdown', event => {
    event.preventDefault();
    box.setPointerCapture(event.pointerId);
    follow(event);
  });
  box.addEventListener('pointermove', event => { if (event.buttons) follow(event); });
  arrange();
}
