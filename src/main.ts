/** The process: argv, one command, one exit code; signals and what nobody caught. */
import { writeSync } from 'node:fs'
import { pause, SystemClock } from './base/clock.ts'
import { messageOf } from './base/errors.ts'
import { Observer } from './base/observe.ts'
import { SystemRandom } from './base/random.ts'
import { runCommandLine } from './cli/run.ts'
import type { World } from './cli/world.ts'

/** Standard input of a command: a password, a token. */
const INPUT_BYTES_MAX = 1_048_576
/** A mail to learn: as much as a request to the node may carry. */
const MAIL_BYTES_MAX = 3_000_000
/** Signals this close together are one wish: a terminal and a parent may both send it. */
const ONE_WISH_MS = 500
/** A log that nobody reads does not hold up the end for longer. */
const LAST_LINES_MS_MAX = 500

const argv = process.argv.slice(2)
const clock = new SystemClock()

/** This program again: the compiled binary, or Bun with the file that it runs. */
const program = Bun.main.startsWith('/$bunfs/') ? [process.execPath] : [process.execPath, Bun.main]

/** The command asked to be told of signals: it stays until one comes. */
let stays = false

try {
  if (argv[0] === 'inspector') process.exitCode = await inspect()
  else if (argv[0] === 'certificate') process.exitCode = await certify()
  else process.exitCode = await command()
} catch (error) {
  fall(error)
}

async function command(): Promise<number> {
  const code = await runCommandLine(argv, world())
  // A node that could not start, or was told to stop, may leave a timer or a child behind.
  if (stays) {
    await Promise.race([write(process.stderr, ''), pause(clock, LAST_LINES_MS_MAX)])
    process.exit(code)
  }
  return code
}

/** Nothing else is loaded or listened to: an inspector closes its doors before its first mail. */
async function inspect(): Promise<number> {
  const { runInspector } = await import('./mail/inspect/worker.ts')
  return await runInspector(argv.slice(1))
}

/** `certificate DIR NAME`: what writes one is large, and would stay in the memory of a node. */
async function certify(): Promise<number> {
  const { openCertificate } = await import('./config/certificate.ts')
  const [, directory = '', name = ''] = argv
  await openCertificate(directory, [name], { clock, random: new SystemRandom() })
  return 0
}

function world(): World {
  process.on('uncaughtException', fall)
  process.on('unhandledRejection', fall)
  // A reader that went away is an error of the write, not a death of the process.
  process.on('SIGPIPE', () => {})
  process.stdout.on('error', () => {})
  process.stderr.on('error', () => {})
  return {
    environment: process.env,
    clock,
    random: new SystemRandom(),
    command: program,
    out: (bytes) => write(process.stdout, bytes),
    err: say,
    input: async () => Buffer.from(await readInput(INPUT_BYTES_MAX)).toString('utf8'),
    bytes: () => readInput(MAIL_BYTES_MAX),
    terminal: process.stdout.isTTY
      ? { columns: process.stdout.columns ?? 80, colour: wantsColour() }
      : null,
    // Imported when asked for: a command loads no store and no web.
    startNode: async (options) => (await import('./node.ts')).startNode(options),
    untilSignal,
  }
}

/** Resolves when the bytes are handed over; a reader that went away ends the wait too. */
function write(stream: NodeJS.WriteStream, bytes: string | Uint8Array): Promise<void> {
  return new Promise((resolve) => stream.write(bytes, () => resolve()))
}

/** At once, so that it is out before an exit. */
function say(text: string): void {
  try {
    writeSync(2, text)
  } catch {
    // Nobody reads: there is nobody to tell.
  }
}

async function readInput(bytesMax: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  let size = 0
  for await (const piece of Bun.stdin.stream()) {
    size += piece.length
    pieces.push(piece)
    // Who asked sees that it is too much.
    if (size > bytesMax) break
  }
  return Buffer.concat(pieces)
}

/** The conventions of NO_COLOR and of terminals that cannot. */
function wantsColour(): boolean {
  const { NO_COLOR: refused = '', TERM: terminal = '' } = process.env
  return refused === '' && terminal !== 'dumb'
}

/**
 * The first SIGINT, SIGTERM or SIGHUP asks for a clean end; a second wish ends at once, with
 * the exit code of that signal.
 */
function untilSignal(): Promise<string> {
  stays = true
  const { promise, resolve } = Promise.withResolvers<string>()
  let askedMs: number | null = null
  for (const [signal, number] of [
    ['SIGHUP', 1],
    ['SIGINT', 2],
    ['SIGTERM', 15],
  ] as const) {
    process.on(signal, () => {
      askedMs ??= clock.monoMs()
      if (clock.monoMs() - askedMs > ONE_WISH_MS) process.exit(128 + number)
      resolve(signal)
    })
  }
  return promise
}

/** A bug: one line for the log, and the end. Whoever supervises the node starts it again. */
function fall(error: unknown): void {
  const observer = new Observer(clock, say)
  const stack = error instanceof Error ? (error.stack ?? '') : ''
  observer.emit('node.failed', { cause: messageOf(error), stack: stack.slice(0, 4_000) })
  observer.flush()
  process.exit(1)
}
