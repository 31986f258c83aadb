/**
 * `run start`: from a fresh clone to a running demo. Installs from the lock file, builds what
 * changed, then becomes `dist/postern demo`. Imports no package: there may be none yet.
 */
import { dirname } from 'node:path'
import { BINARY, build, installPackages } from './build.ts'

const ROOT = dirname(import.meta.dir)

async function start(args: readonly string[]): Promise<number> {
  const failure = installPackages()
  if (failure !== null) return complain(`${failure}\nThe packages could not be installed.\n`)
  const built = build()
  if (!built.ok) return complain(`${built.output}\nThe binary could not be built.\n`)

  const child = Bun.spawn([BINARY, 'demo', ...args], {
    cwd: ROOT,
    stdin: 'inherit',
    stdout: 'inherit',
    stderr: 'inherit',
  })
  // A terminal sends to the whole group, anybody else to this process: the demo gets it anyway.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => child.kill(signal))
  }
  return await child.exited
}

function complain(text: string): number {
  process.stderr.write(text)
  return 1
}

if (import.meta.main) process.exitCode = await start(process.argv.slice(2))
