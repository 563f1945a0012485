"""The head of the report: what was measured, where, and what was damaged or failed."""

from collections.abc import Iterable, Sequence
from html import escape

from derain_ros.report.html_page import code
from derain_ros.report.runs import Entry
from derain_ros.report.tables import head, open_table
from derain_ros.text import printable

_LISTED = 20
_COMMANDS = {'bag': 'derain bag', 'pairs': 'derain evaluate', 'replay': 'derain replay-bench',
             'detections': 'derain detections'}


def heading(entries: Sequence[Entry], title: str) -> Iterable[str]:
    """Yield title, the runs with the bags that they read and wrote, and troubles."""
    models = list(dict.fromkeys(filter(None, (entry.facts['model'] for entry in entries))))
    files = len({entry.file for entry in entries})
    yield '<header>'
    yield f'<h1>{escape(title)}</h1>'
    named = f', {"model" if len(models) == 1 else "models"} {", ".join(models)}' if models else ''
    yield (f'<p class="soft">{_many(files, "run file")}{escape(named)}. '
           'Each run has a letter, and a model its colour, all over the page.</p>')
    yield f'<ul class="facts">{"".join(map(_source, entries))}</ul>'
    troubles = [line for entry in entries for line in _troubles(entry)]
    if troubles:
        yield '<section class="trouble" aria-labelledby="trouble">'
        yield f'<h2 id="trouble">Damage and failures</h2><ul>{"".join(dict.fromkeys(troubles))}'
        yield '</ul></section>'
    yield '</header>'


def runs_section(entries: Sequence[Entry]) -> Iterable[str]:
    """Yield what ran where: a row for each entry."""
    yield '<h2 id="runs">Models, versions and machines</h2>'
    yield from open_table('Model, versions and machine of each run')
    heads = ('command', 'model file', 'device', 'versions', 'machine')
    yield ('<thead><tr><th scope="col" class="note">run</th>'
           + ''.join(f'<th scope="col" class="note">{name}</th>' for name in heads)
           + '</tr></thead><tbody>')
    for entry in entries:
        facts = entry.facts
        digest = f'<small class="start">sha256 {code(facts["sha256"][:16])}</small>' if (
            facts['sha256']) else ''
        cells = [f'<code>{_COMMANDS[entry.kind]}</code>',
                 (code(facts['file']) if facts['file'] else '–') + digest,
                 escape(facts['device'] or '–'), escape(_versions(entry.run['versions'])),
                 escape(_host(entry.run['host']))]
        yield (f'<tr><th scope="row">{head(entry)}</th>'
               + ''.join(f'<td class="name">{cell}</td>' for cell in cells) + '</tr>')
    yield '</tbody></table></div>'


def _source(entry: Entry) -> str:
    """Return what an entry is, and what it read and wrote, as an item of a list."""
    run = entry.run
    about = f', {entry.about}' if entry.about else ''
    if entry.kind == 'bag':
        stretch = ''
        if run['start_s'] is not None:
            stretch += f', from {run["start_s"]:g} s on'
        if run['duration_s'] is not None:
            stretch += f', {run["duration_s"]:g} s long'
        if run['every'] != 1:
            stretch += f', one frame of {run["every"]}'
        if run['strength'] != 1:
            stretch += f', strength {run["strength"]:g}'
        told = f'derained {_bag(run["source"])}{stretch}; result {_bag(run["output"])}'
    elif entry.kind == 'replay':
        told = f'replayed {_bag(run["bag"])}'
    else:
        source, in_bag = run['source'], 'bag' in run['source']
        parts = [f'{version} {code(source[name])}' for version in ('rainy', 'derained', 'clean')
                 if source.get(name := f'{version}_topic' if in_bag else version)]
        told = 'measured ' + (f'bag {code(source["bag"])}: ' if in_bag else '') + ', '.join(parts)
    return (f'<li><span class="patch c{entry.colour}" aria-hidden="true"></span>'
            f'<b>{escape(f"{entry.letter}: {entry.name}")}</b>{escape(about)}: {told}</li>')


def _bag(bag: dict) -> str:
    size = sum(file['bytes'] for file in bag['files']) / 1e6
    return (f'{code(bag["path"])} ({size:.1f} MB, sha256 {code(bag["sha256"][:16])})')


def _troubles(entry: Entry) -> Iterable[str]:
    """Yield damage and failures of an entry as items of a list."""
    run, letter = entry.run, f'<b>{entry.letter}</b>: '
    if entry.kind == 'bag':
        damage = run['source']['damage']
        if damage:
            where = '' if damage['offset'] is None else f' at byte {damage["offset"]}'
            yield (f'<li>{letter}{code(damage["file"])} is damaged{where}: '
                   f'{escape(damage["reason"])}; what follows there was not derained</li>')
        for camera in run['cameras']:
            if camera['failed']:
                told = [f'at {failure["time"] / 1e9:.3f} s: {failure["reason"]}'
                        for failure in camera['failures'][:_LISTED]]
                yield (f'<li>{letter}{_many(camera["failed"], "frame")} of '
                       f'{code(camera["source"])} could not be derained'
                       f'{_details(told, camera["failed"])}</li>')
    elif entry.kind in ('pairs', 'detections'):
        failed = run['failed'] if entry.kind == 'pairs' else run['source'].get('failed', [])
        if failed:
            told = [bad['reason'] for bad in failed[:_LISTED]]
            what = 'frame'
            if entry.kind == 'pairs':
                # All models of the file share its pairs.
                what, letter = 'pair', f'{escape(printable(entry.file.name))}: '
            yield (f'<li>{letter}{_many(len(failed), what)} could not be measured'
                   f'{_details(told, len(failed))}</li>')
    else:
        late = [f'{replayed["factor"]:g}' for replayed in run['runs']
                if not replayed.get('pacing', {'kept': True})['kept']]
        if late:
            yield (f'<li>{letter}the bag could not be played at {", ".join(late)} times the '
                   'recorded rate; the figures are of a slower one</li>')
        for camera in run['runs'][0]['cameras']:
            faults = camera['frames']['outcome'].count('fault')
            if faults:
                yield (f'<li>{letter}the node failed on {_many(faults, "frame")} of '
                       f'{code(camera["topic"])}</li>')


def _many(count: int, noun: str) -> str:
    return f'{count} {noun}{"" if count == 1 else "s"}'


def _details(told: Sequence[str], total: int) -> str:
    more = f'<li>and {total - len(told)} more</li>' if total > len(told) else ''
    items = ''.join(f'<li>{escape(text)}</li>' for text in told)
    return f'<details><summary>reasons</summary><ul>{items}{more}</ul></details>' if told else ''


def _versions(versions: dict) -> str:
    return ', '.join(f'{name} {versions[name]}' for name in ('derain_ros', 'openvino', 'torch')
                     if isinstance(versions.get(name), str))


def _host(host: dict) -> str:
    cores = None if host['cores'] is None else f'{host["cores"]} cores'
    return ', '.join(part for part in (host['processor'], cores, host['system']) if part)
