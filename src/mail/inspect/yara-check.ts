/**
 * Whether a YARA source may be taken: compiled and tried in a process of its own, behind the
 * walls of an inspector, ended when it takes too long. The main process never loads libyara.
 */
import { readSync, writeSync } from 'node:fs'
import type { Clock } from '../../base/clock.ts'
import { confine } from './confine.ts'

/** The word of the command line that makes an inspector try rules. */
export const CHECK_YARA = '--check-yara'

/** For compiling and for all trials together. */
const CHECK_MS_MAX = 5_000
const YARA_SOURCE_BYTES_MAX = 256 * 1024

/**
 * What is wrong with `source`, at most 20 whole sentences; empty: nothing. `command` starts this
 * program as an inspector: `[path, 'inspector']`.
 */
export async function checkYara(
  command: readonly string[],
  clock: Clock,
  source: string,
): Promise<readonly string[]> {
  if (Buffer.byteLength(source) > YARA_SOURCE_BYTES_MAX)
    return [`The rules are larger than ${YARA_SOURCE_BYTES_MAX} bytes.`]
  const child = Bun.spawn([...command, CHECK_YARA], {
    stdin: Buffer.from(source),
    stdout: 'pipe',
    stderr: 'ignore',
    cwd: '/',
    env: {},
  })
  let late = false
  const timer = clock.after(CHECK_MS_MAX, () => {
    late = true
    child.kill('SIGKILL')
  })
  const said = await new Response(child.stdout).text()
  await child.exited
  timer.cancel()
  if (late) return [`The rules take longer than ${CHECK_MS_MAX / 1_000} s on a few files.`]
  try {
    const errors: unknown = JSON.parse(said)
    if (Array.isArray(errors)) return errors.map(String).slice(0, 20)
  } catch {
    // Said below.
  }
  return ['The rules could not be tried: the process that tries them ended.']
}

/** The process of `checkYara`: reads a source from its input, prints what is wrong as JSON. */
export async function runYaraCheck(args: readonly string[]): Promise<number> {
  confine({ readable: [] }, args)
  const source = readInput().toString('utf8')
  const { tryYara } = await import('./yara-rules.ts')
  // By the plain calls: streams want files that are behind the walls.
  writeSync(1, JSON.stringify(await tryYara(source)))
  return 0
}

function readInput(): Buffer {
  const room = Buffer.alloc(YARA_SOURCE_BYTES_MAX)
  let length = 0
  for (;;) {
    const count = length < room.length ? readSync(0, room, length, room.length - length, null) : 0
    if (count === 0) return room.subarray(0, length)
    length += count
  }
}
