"""A page of ``derain report``, read again, and what every such page keeps to."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise

VOID = {'meta', 'img', 'input', 'br'}
HOSTILE = '"><script>document.title="owned"</script><img src=x onerror=alert(1)>&\''


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

    @property
    def pictures(self):
        """Images of frames: alternative text, view, JPEG."""
        return [(image['alt'], image['data-view'], _data(image, 'jpeg'))
                for image in self.all('img') if 'data-view' in image]

    @property
    def plots(self):
        """Root elements of the plots by their alternative texts."""
        return {image['alt']: ElementTree.fromstring(_data(image, 'svg+xml'))
                for image in self.all('img') if 'data-view' not in image}

    def skeleton(self):
        """Tags and names of attributes."""
        return [(tag, sorted(attributes)) for tag, attributes in self.elements]


def _data(image, kind):
    head, _, data = image['src'].partition(',')
    assert head == f'data:image/{kind};base64'
    return base64.b64decode(data, validate=True)


def rows_of(text, caption):
    """Return the rows of a table of a page: lists of texts."""
    found = re.search(f'<caption>{re.escape(caption)}</caption>(.*?)</table>', text, re.S)[1]
    return [[re.sub('<[^>]*>', ' ', cell).split() for cell in re.findall(
        r'<t[hd][^>]*>(.*?)</t[hd]>', row, re.S)] for row in re.findall(
            '<tr>(.*?)</tr>', found, re.S)]


def check_structure(page):
    """Assert what every page keeps to."""
    ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(ids) == len(set(ids))
    assert all(image['alt'].strip() for image in page.all('img'))
    labelled = {attributes['for'] for attributes in page.all('label')}
    for tag in ('input', 'select'):
        assert all(field['id'] in labelled for field in page.all(tag))
    for tag, attributes in page.elements:
        for name in ('aria-labelledby', 'aria-describedby'):
            assert set(attributes.get(name, '').split()) <= set(ids)
        # Nothing is loaded, and no style or script stands in an attribute.
        assert not {'srcset', 'style'} & set(attributes), tag
        assert not [name for name in attributes if name.startswith('on')], tag
        assert attributes.get('src', 'data:image/').startswith('data:image/')
    assert not {'link', 'iframe', 'object', 'base'} & {tag for tag, _ in page.elements}
    policy = next(meta['content'] for meta in page.all('meta') if 'http-equiv' in meta)
    assert "default-src 'none'" in policy and 'unsafe' not in policy
    assert len(page.all('script')) == len(page.all('style')) == 1
    assert {link['href'].removeprefix('#') for link in page.all('a')} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1
               for before, after in pairwise(levels)), levels
    assert page.elements[0] == ('html', {'lang': 'en'})
    for plot in page.plots.values():
        assert not {'script', 'a', 'image'} & {
            element.tag.rpartition('}')[2] for element in plot.iter()}
