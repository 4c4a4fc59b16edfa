import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.{ts,tsx}'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // Two cores, and the service and its PostgreSQL need one of them.
    poolOptions: { forks: { maxForks: 2 } },
  },
});
