import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.{ts,tsx}'],
    // Minutes: no test depends on how busy the machine is. `until` of test/support.ts gives up before.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    pool: 'forks',
    // What a test that passes prints is of no use: many provoke errors that the library reports.
    silent: 'passed-only',
    // Two cores, and the service and its PostgreSQL need one of them.
    poolOptions: { forks: { maxForks: 2 } },
  },
});
