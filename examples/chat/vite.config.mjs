// The page, the application's routes and the realtime service behind one origin, as a proxy would have it
// in production: the service lets pages of the same host connect without a setting.

import { defineConfig } from 'vite';
import { application } from './server.mjs';

const service = process.env.REALTIME_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [
    {
      name: 'application',
      configureServer: ({ middlewares }) => void middlewares.use('/api', application()),
    },
  ],
  // The linked library has a React of its own for its tests.
  resolve: { dedupe: ['react', 'react-dom'] },
  server: {
    host: '127.0.0.1',
    fs: { allow: ['.', '../../clients/typescript'] },
    proxy: {
      '/ws': { target: service, ws: true },
    },
  },
});
