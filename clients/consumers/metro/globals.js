// The globals that React Native writes in JavaScript, as its Libraries/Core/setUpXHR.js sets them, over a native side that is
// made up: its WebSocket reaches `server`, the library's mock. The globals of the native side itself are run.mjs's.

import { AbortController, AbortSignal } from 'abort-controller/dist/abort-controller';
import { MockRealtimeServer } from '@hushnet/realtime/testing';
import { URL, URLSearchParams } from 'react-native/Libraries/Blob/URL';
import { Headers, Request, Response } from 'react-native/Libraries/Network/fetch';
import phone from 'react-native/Libraries/EventEmitter/RCTDeviceEventEmitter';

export const server = new MockRealtimeServer();
const sockets = new Map();

Object.assign(globalThis.nativeModuleProxy, {
  PlatformConstants: { getConstants: () => ({}) },
  WebSocketModule: {
    connect(url, protocols, _options, id) {
      const socket = new server.WebSocket(url, protocols);
      sockets.set(id, socket);
      socket.onopen = () => phone.emit('websocketOpen', { id, protocol: protocols[0] });
      socket.onmessage = ({ data }) => phone.emit('websocketMessage', { id, type: 'text', data });
      socket.onclose = ({ code, reason }) => {
        // A lost network has no close frame.
        if (code === 1006) phone.emit('websocketFailed', { id, message: 'Software caused connection abort' });
        else phone.emit('websocketClosed', { id, code, reason });
      };
    },
    send: (text, id) => sockets.get(id).send(text),
    close: (code, _reason, id) => sockets.get(id).close(code),
    addListener() {},
    removeListeners() {},
  },
});
Object.assign(globalThis, { AbortController, AbortSignal, Headers, Request, Response, URL, URLSearchParams });
// Asks for its native module when it is loaded.
globalThis.WebSocket = require('react-native/Libraries/WebSocket/WebSocket').default;
