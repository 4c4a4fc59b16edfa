// Bundles the application with React Native's settings, and compiles the bundles with Hermes, as a release is built.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import Metro from 'metro';

/** Hermes' compiler for this machine. npm has none for Linux on ARM. */
const hermes = { 'linux-x64': 'linux64-bin/hermesc', 'darwin-x64': 'osx-bin/hermesc', 'darwin-arm64': 'osx-bin/hermesc' }[
  `${process.platform}-${process.arch}`
];
if (!hermes) console.log(`not compiled: npm has no Hermes for ${process.platform} on ${process.arch}`);

async function bundle(name, resolver) {
  const config = await Metro.loadConfig({ config: 'metro.config.js', maxWorkers: 2 }, { resolver, cacheStores: [] });
  const out = `dist/${name}.js`;
  await Metro.runBuild(config, { entry: 'index.js', platform: 'android', dev: false, minify: true, out });
  if (!hermes) return;
  const compiled = `dist/${name}.hbc`;
  const compiler = `node_modules/hermes-compiler/hermesc/${hermes}`;
  execFileSync(compiler, ['-O', '-w', '-emit-binary', '-out', compiled, out], { stdio: 'inherit' });
  if (!existsSync(compiled) || statSync(compiled).size === 0) throw new Error('Hermes has compiled nothing');
}

mkdirSync('dist');
await bundle('exports', {});
// React Native before 0.79 looks for files, and not into `exports`.
await bundle('files', { unstable_enablePackageExports: false });
process.exit(0);
