/**
 * `run test`: install, type check, lint, build, then every suite in a process of its own with a
 * time limit. Names what was skipped and what to install for it. The last line is
 * `N passed, N failed`; exit code 1 when anything failed or nothing ran. Words on the command
 * line choose suites by a part of their path.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { BINARY, build, installPackages } from '../appliance/build.ts'
import type { Skip } from './real.ts'

const ROOT = dirname(import.meta.dir)

/** Folders whose suites load the machine or own ports: one at a time, with more time. */
const HEAVY = /^test\/(process|browser|smtp|soak|hosts|sim)\//
const LIGHT_LIMIT_MS = limitFrom('POSTERN_LIGHT_LIMIT_MS', 180_000)
const HEAVY_LIMIT_MS = limitFrom('POSTERN_HEAVY_LIMIT_MS', 300_000)
const LIGHT_AT_A_TIME = 2
/** One test of a suite, unless it asks for more itself. */
const TEST_LIMIT_MS = 20_000
/** Of a failed suite, this much of the end of its output is printed. */
const OUTPUT_CHARS_MAX = 20_000
/** How long the output of an ended suite may stay open. */
const ESCAPED_MS_MAX = 5_000

type Count = { readonly passed: number; readonly failed: number; readonly skipped: number }
type Ended = { readonly code: number | null; readonly output: string; readonly late: boolean }

const PASSED: Count = { passed: 1, failed: 0, skipped: 0 }
const FAILED: Count = { passed: 0, failed: 1, skipped: 0 }

const running = new Set<number>()
let passed = 0
let failed = 0

async function main(words: readonly string[]): Promise<void> {
  const failure = installPackages()
  if (failure !== null) return report('install', FAILED, 0, failure)

  await tool('type check', ['node_modules/typescript/bin/tsc', '--noEmit', '-p', '.'])
  await tool('lint', ['node_modules/@biomejs/biome/bin/biome', 'check', '.'])
  const chosen = suites(words)
  const light = chosen.filter((file) => !HEAVY.test(file))
  const heavy = chosen.filter((file) => HEAVY.test(file))
  const needsBinary = words.length === 0 || heavy.length > 0
  if (needsBinary) {
    const from = performance.now()
    const { ok, output } = build()
    report('build', ok ? PASSED : FAILED, performance.now() - from, ok ? '' : output)
  }

  // Without a binary of this run the suites take the sources.
  const binary = needsBinary ? BINARY : ''
  const work = mkdtempSync(join(tmpdir(), 'postern-test-'))
  try {
    await inTurn(LIGHT_AT_A_TIME, light, (file) => suite(file, LIGHT_LIMIT_MS, work, binary))
    await inTurn(1, heavy, (file) => suite(file, HEAVY_LIMIT_MS, work, binary))
    nameSkips(join(work, 'skips'))
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** A limit that a slower machine may raise. */
function limitFrom(variable: string, otherwise: number): number {
  const limit = Number(process.env[variable])
  return limit > 0 ? limit : otherwise
}

function suites(words: readonly string[]): string[] {
  const all = [...new Bun.Glob('test/**/*.test.ts').scanSync({ cwd: ROOT })].sort()
  return words.length === 0 ? all : all.filter((file) => words.some((word) => file.includes(word)))
}

/** Takes `items` in order, `width` at a time. */
async function inTurn<Item>(
  width: number,
  items: readonly Item[],
  run: (item: Item) => Promise<void>,
): Promise<void> {
  const waiting = [...items]
  const lane = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await run(item)
  }
  await Promise.all(Array.from({ length: width }, lane))
}

async function tool(name: string, command: readonly string[]): Promise<void> {
  const from = performance.now()
  const ended = await run([process.execPath, ...command], LIGHT_LIMIT_MS, {})
  const ok = ended.code === 0
  report(name, ok ? PASSED : FAILED, performance.now() - from, ok ? '' : ended.output)
}

async function suite(file: string, limitMs: number, work: string, binary: string): Promise<void> {
  const from = performance.now()
  const junit = join(work, `${file.replaceAll('/', '.')}.xml`)
  const ended = await run(
    [
      process.execPath,
      'test',
      `--timeout=${TEST_LIMIT_MS}`,
      '--reporter=junit',
      `--reporter-outfile=${junit}`,
      `./${file}`,
    ],
    limitMs,
    { POSTERN_BIN: binary, POSTERN_TEST_SKIPS: join(work, 'skips') },
  )
  const counted = countJunit(existsSync(junit) ? readFileSync(junit, 'utf8') : '')
  const named = readSkips(join(work, 'skips')).some((skip) => skip.file === file)
  const count = judge(counted, ended.code, named)
  const why = ended.late ? `\nended after ${limitMs / 1000} s: the time limit of this suite\n` : ''
  report(file, count, performance.now() - from, count.failed === 0 ? '' : ended.output + why)
}

/** The numbers of bun's JUnit report; null when it is none. */
export function countJunit(text: string): Count | null {
  const tag = /<testsuites\b[^>]*>/.exec(text)?.[0]
  if (tag === undefined) return null
  const number = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(tag)?.[1] ?? '0')
  const [tests, failures, skipped] = [number('tests'), number('failures'), number('skipped')]
  return { passed: tests - failures - skipped, failed: failures, skipped }
}

/**
 * What a suite counts for. No report, an exit code that the report doesn't explain, not one test
 * in it, or skipped ones that gave no reason (`named`): one failure, so that a suite that fell
 * over never looks like one that passed.
 */
export function judge(counted: Count | null, code: number | null, named = false): Count {
  if (counted === null) return { passed: 0, failed: 1, skipped: 0 }
  const silent = counted.passed + counted.failed + counted.skipped === 0
  const unexplained = code !== 0 && counted.failed === 0
  const hushed = counted.skipped > 0 && !named
  return silent || unexplained || hushed ? { ...counted, failed: counted.failed + 1 } : counted
}

function report(name: string, count: Count, tookMs: number, output: string): void {
  passed += count.passed
  failed += count.failed
  const numbers = [
    `${count.passed} passed`,
    ...(count.failed > 0 ? [`${count.failed} failed`] : []),
    ...(count.skipped > 0 ? [`${count.skipped} skipped`] : []),
  ]
  const word = count.failed > 0 ? 'FAIL' : 'ok  '
  print(`${word} ${name.padEnd(36)} ${numbers.join(', ')} (${(tookMs / 1000).toFixed(1)} s)`)
  if (output === '') return
  const lines = output.split('\n').filter((line) => !line.startsWith('(pass) '))
  print(lines.join('\n').slice(-OUTPUT_CHARS_MAX).trimEnd())
}

/**
 * Names each skipped suite and what to install. On CI each of them is a failure, but for what
 * the host itself cannot do.
 */
function nameSkips(log: string): void {
  const skips = readSkips(log)
  for (const { file, title, needs } of skips) {
    print(`skipped ${file}: ${title} (needs ${needs.join(', ')})`)
  }
  const able = skips.filter(({ host }) => !host)
  const packages = [...new Set(able.flatMap(({ needs }) => needs))].filter((one) => one !== 'root')
  if (packages.length > 0) print(`to run them: apt-get install ${packages.join(' ')}`)
  if (process.env['CI'] === 'true' && able.length > 0) {
    failed += able.length
    print(`CI runs every suite: ${able.length} skipped count as failed`)
  }
}

function readSkips(log: string): readonly Skip[] {
  const lines = existsSync(log) ? readFileSync(log, 'utf8').split('\n') : []
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Skip)
}

/**
 * Runs a command in a process group of its own, so that nothing it started outlives it, and
 * ends the group at the limit.
 */
async function run(
  command: string[],
  limitMs: number,
  env: Readonly<Record<string, string>>,
): Promise<Ended> {
  const child = Bun.spawn(command, {
    cwd: ROOT,
    env: { ...process.env, FORCE_COLOR: '0', NO_COLOR: '1', ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    detached: true,
  })
  running.add(child.pid)
  let late = false
  const limit = setTimeout(() => {
    late = true
    endGroup(child.pid)
  }, limitMs)
  const output = [new Collected(child.stdout), new Collected(child.stderr)]
  const code = await child.exited
  clearTimeout(limit)
  // Whatever the suite left behind also holds its pipes open: end it, then read to the end. What
  // left the group as well is not waited for.
  endGroup(child.pid)
  running.delete(child.pid)
  const patience = setTimeout(() => {
    for (const stream of output) stream.stop()
  }, ESCAPED_MS_MAX)
  await Promise.all(output.map(({ ended }) => ended))
  clearTimeout(patience)
  return { code, output: output.map(({ text }) => text).join(''), late }
}

/** The output of a process so far, and whether it came to its end. */
class Collected {
  text = ''
  readonly ended: Promise<void>
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader()
    this.ended = this.#read()
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder()
    for (;;) {
      const { done, value } = await this.#reader.read()
      if (done) return
      this.text += decoder.decode(value, { stream: true })
      // A suite that prints without end is judged by its end.
      if (this.text.length > 4 * OUTPUT_CHARS_MAX) this.text = this.text.slice(-OUTPUT_CHARS_MAX)
    }
  }

  stop(): void {
    this.text += '\n(the output was still held open)\n'
    void this.#reader.cancel()
  }
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // Nobody is left in the group.
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

if (import.meta.main) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      for (const pid of running) endGroup(pid)
      process.exit(1)
    })
  }
  try {
    await main(process.argv.slice(2))
  } catch (error) {
    failed += 1
    print(error instanceof Error ? (error.stack ?? error.message) : String(error))
  }
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0
  print(`${passed} passed, ${failed} failed`)
}
