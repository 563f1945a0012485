"""A page of ``derain report``, read again, and what every such page keeps to."""

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {'meta', 'img', 'input', 'br'}


class Page(HTMLParser):
    """Elements of a page; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self._open = [], '', []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), tag
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def rows_of(text, caption):
    """Return the rows of a table of a page: lists of texts."""
    found = re.search(f'<caption>{re.escape(caption)}</caption>(.*?)</table>', text, re.S)[1]
    return [[re.sub('<[^>]*>', ' ', cell).split() for cell in re.findall(
        r'<t[hd][^>]*>(.*?)</t[hd]>', row, re.S)] for row in re.findall('<tr>(.*?)</tr>', found)]


def check_structure(page):
    """Assert what every page keeps to."""
    ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(ids) == len(set(ids))
    assert all(image['alt'].strip() for image in page.all('img'))
    labelled = {attributes['for'] for attributes in page.all('label')}
    for tag in ('input', 'select'):
        assert all(field['id'] in labelled for field in page.all(tag))
    for _, attributes in page.elements:
        for name in ('aria-labelledby', 'aria-describedby'):
            assert set(attributes.get(name, '').split()) <= set(ids)
    assert {link['href'].removeprefix('#') for link in page.all('a')} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1
               for before, after in pairwise(levels)), levels
    assert page.elements[0] == ('html', {'lang': 'en'})
    plots = [svg for svg in page.all('svg') if svg.get('role') == 'img']
    assert all(svg['aria-labelledby'] for svg in plots)
    assert len(plots) == len(page.all('title')) - 1 == len(page.all('desc'))
    for line in page.all('polyline'):
        assert re.fullmatch(r'(-?[0-9.]+,-?[0-9.]+ ?)+', line['points'])
