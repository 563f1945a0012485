"""A real browser for tests: headless Chromium, driven over the DevTools protocol by a pipe.

Messages are JSON ended by NUL, on file descriptors 3 (to the browser) and 4 (from it).
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from itertools import count

CHROMIUM = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome'))), None)

_KEYS = {
    'Tab': (9, ''), 'ArrowLeft': (37, ''), 'ArrowRight': (39, ''), 'ArrowDown': (40, ''),
    'Home': (36, ''), 'End': (35, ''), ' ': (32, ' '), 'Enter': (13, '\r'),
}


class Browser:
    """One page in a headless Chromium.

    ``requests`` are the addresses of everything that the page asked for, ``complaints`` what the
    console, the log and uncaught exceptions told.
    """

    def __init__(self, profile, limit=60.0):
        self._limit, self._numbers, self._rest = limit, count(1), b''
        self.requests, self.complaints, self._loaded = [], [], 0
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()
        # A shell puts the pipes where Chromium wants them, whatever numbers they have here.
        command = [
            'bash', '-c', f'exec "$@" 3<&{to_child} 4>&{from_child}', 'browser', CHROMIUM,
            '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--no-first-run',
            '--disable-background-networking', '--disable-component-update', '--disable-sync',
            '--remote-debugging-pipe', f'--user-data-dir={profile}', 'about:blank']
        self._process = subprocess.Popen(
            command, pass_fds=(to_child, from_child), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self._session = None
        try:
            target = self.send('Target.createTarget', url='about:blank')['targetId']
            self._session = self.send(
                'Target.attachToTarget', targetId=target, flatten=True)['sessionId']
            for domain in ('Page', 'Runtime', 'Log', 'Network'):
                self.send(f'{domain}.enable')
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End the browser and all its processes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for end in (self._read, self._write):
            os.close(end)

    def send(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        message = {'id': number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        data = memoryview(json.dumps(message).encode() + b'\0')
        while data:
            data = data[os.write(self._write, data):]
        end = time.monotonic() + self._limit
        while True:
            answer = self._next(end)
            if answer.get('id') == number:
                assert 'error' not in answer, f'{method}: {answer["error"]}'
                return answer['result']

    def open(self, path):
        """Open a file and wait until it is loaded."""
        before = self._loaded
        self.requests.clear()
        self.send('Page.navigate', url=path.as_uri())
        end = time.monotonic() + self._limit
        while self._loaded == before:
            self._next(end)

    def size(self, width, height, *, dark=False, phone=False):
        """Set the size of the window, and whether the user likes it dark."""
        self.send('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.send('Emulation.setEmulatedMedia', features=[
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])

    def evaluate(self, script):
        """Return what a script comes to."""
        result = self.send('Runtime.evaluate', expression=script, returnByValue=True,
                           awaitPromise=True)
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def press(self, key, *, times=1, shift=False):
        """Press a key, as a user does."""
        code, written = _KEYS[key]
        for _ in range(times):
            for kind in ('keyDown', 'keyUp'):
                told = {'text': written} if written and kind == 'keyDown' else {}
                self.send('Input.dispatchKeyEvent', type=kind, key=key,
                          code={' ': 'Space'}.get(key, key), windowsVirtualKeyCode=code,
                          modifiers=8 if shift else 0, **told)

    def screenshot(self, path, *, whole=True):
        """Write a picture of the page, or of what the window shows, and return its path."""
        area = {}
        if whole:
            size = self.send('Page.getLayoutMetrics')['cssContentSize']
            area = {'captureBeyondViewport': True, 'clip': {**size, 'scale': 1}}
        shot = self.send('Page.captureScreenshot', **area)
        path.write_bytes(base64.b64decode(shot['data']))
        return path

    def _next(self, end):
        """Return the next message, after taking note of an event."""
        while b'\0' not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            assert ready, 'the browser does not answer'
            data = os.read(self._read, 1 << 20)
            assert data, 'the browser has gone'
            self._rest += data
        found, _, self._rest = self._rest.partition(b'\0')
        message = json.loads(found)
        told = message.get('params', {})
        match message.get('method'):
            case 'Page.loadEventFired':
                self._loaded += 1
            case 'Network.requestWillBeSent':
                self.requests.append(told['request']['url'])
            case 'Runtime.exceptionThrown':
                self.complaints.append(json.dumps(told['exceptionDetails']))
            case 'Runtime.consoleAPICalled':
                self.complaints.append(json.dumps(told['args']))
            case 'Log.entryAdded':
                self.complaints.append(told['entry']['text'])
        return message
