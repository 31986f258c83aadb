/**
 * `run start`: from a fresh clone to a running demo. Installs from the lock file, builds what
 * changed, then hands over to `dist/postern demo`. Imports no package: there may be none yet.
 */
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { BINARY, build, installPackages } from './build.ts'

const ROOT = dirname(import.meta.dir)
/** How often it looks whether the shell of npm is still there. */
const LOOK_MS = 500

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
  const looking = whenNpmEnds(() => child.kill('SIGTERM'))
  const code = await child.exited
  clearInterval(looking)
  return code
}

/**
 * npm, when it is told to end, ends the shell between it and `bun run`, and nobody tells us.
 * Started without npm there is no such shell, and nothing is looked at.
 */
function whenNpmEnds(end: () => void): NodeJS.Timeout | undefined {
  const shell = parentOf(process.ppid)
  if (shell === null || !/^(\/\S*\/)?sh\0-c\0/.test(textOf(`/proc/${shell}/cmdline`))) return
  const looking = setInterval(() => {
    if (parentOf(process.ppid) === shell) return
    clearInterval(looking)
    end()
  }, LOOK_MS)
  return looking
}

/** Null when there is no such process, or no /proc to look in. */
function parentOf(pid: number): number | null {
  const match = /^PPid:\s+(\d+)$/m.exec(textOf(`/proc/${pid}/status`))
  return match === null ? null : Number(match[1])
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

function complain(text: string): number {
  process.stderr.write(text)
  return 1
}

if (import.meta.main) process.exitCode = await start(process.argv.slice(2))
