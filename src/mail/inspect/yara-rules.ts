/**
 * YARA rules of the operator, run by libyara in WebAssembly (libyara-wasm, ISC). It cannot be
 * stopped from within: rules are tried before they are taken (yara-check.ts), and the pool ends
 * an inspector that overruns. Only inspector processes load this.
 */

import { plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import type { Scan } from './files.ts'

/** Of one file, its beginning. What a rule costs on so much is tried at the door. */
const SCAN_BYTES_MAX = 512 * 1024
/** Of all files of one message. */
const MESSAGE_BYTES_MAX = 8 * 1024 * 1024
/** Each run compiles the rules again, and libyara keeps 8 MB of it for good. */
const RUNS_MAX = 12
/** An instance that ran so often is thrown away before the next message. */
const USED_RUNS_MAX = 4
const FINDINGS_MAX = 50
const SCORE = 5
const SCORE_MAX = 100

/** What libyara-wasm gives; lists are objects of C++ and must be given back. */
type List<Item> = { size(): number; get(index: number): Item; delete(): void }
type Meta = { readonly identifier: string; readonly data: string }
type Matched = { readonly ruleName: string; readonly metadata: List<Meta> }
type CompileError = {
  readonly message: string
  readonly lineNumber: number
  readonly warning: boolean
}
type Result = {
  readonly compileErrors: List<CompileError>
  readonly matchedRules: List<Matched>
  delete(): void
}
export type Yara = { run(content: Uint8Array, rules: string): Result }

let loaded: { readonly yara: Yara; runs: number } | null = null

/** An instance with room for the runs of one message. */
async function fresh(): Promise<{ readonly yara: Yara; runs: number }> {
  if (loaded === null || loaded.runs > USED_RUNS_MAX) {
    // Two of them at one time would be too much: the old one must be garbage before.
    loaded = null
    Bun.gc(true)
    loaded = { yara: await load(), runs: 0 }
  }
  return loaded
}

async function load(): Promise<Yara> {
  const { default: factory } = await import('libyara-wasm')
  const events = ['uncaughtException', 'unhandledRejection'] as const
  const before = events.map((event) => process.listeners(event as 'uncaughtException'))
  const yara = await (factory as unknown as () => Promise<Yara>)()
  // It sets itself between this process and its errors; nobody asked for that.
  for (const [index, event] of events.entries())
    for (const listener of process.listeners(event as 'uncaughtException'))
      if (before[index]?.includes(listener) === false) process.off(event, listener)
  return yara
}

export type YaraMatch = { readonly rule: string; readonly score: number; readonly about: string }
export type YaraRun = { readonly matches: readonly YaraMatch[]; readonly errors: readonly string[] }

/** Runs `source` over `content`. An error, or a warning of slowness, is told with its line. */
function runYara(yara: Yara, content: Uint8Array, source: string): YaraRun {
  const result = yara.run(content, source)
  const { compileErrors, matchedRules } = result
  const errors: string[] = []
  for (let index = 0; index < Math.min(compileErrors.size(), 20); index += 1) {
    const { message, lineNumber } = compileErrors.get(index)
    errors.push(`Line ${lineNumber}: ${plainLine(message, 200)}.`)
  }
  const matches: YaraMatch[] = []
  for (let index = 0; index < Math.min(matchedRules.size(), FINDINGS_MAX); index += 1)
    matches.push(matchOf(matchedRules.get(index)))
  for (const list of [compileErrors, matchedRules, result]) list.delete()
  return { matches, errors }
}

function matchOf({ ruleName, metadata }: Matched): YaraMatch {
  let score = SCORE
  let about = ''
  for (let index = 0; index < metadata.size(); index += 1) {
    const { identifier, data } = metadata.get(index)
    if (identifier === 'score' && /^-?\d{1,3}$/.test(data))
      score = Math.max(-SCORE_MAX, Math.min(SCORE_MAX, Number(data)))
    if (identifier === 'description') about = plainLine(data, 120)
  }
  metadata.delete()
  return { rule: `YARA_${ruleName.toUpperCase().slice(0, 60)}`, score, about }
}

/** Rules of all sources, as one text where their names allow it: each run compiles them again. */
const texts = new WeakMap<Readonly<Record<string, string>>, readonly string[]>()

function textsOf(
  used: { readonly yara: Yara; runs: number },
  sources: Readonly<Record<string, string>>,
): readonly string[] {
  const known = texts.get(sources)
  if (known !== undefined) return known
  const each = Object.entries(sources)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, source]) => source)
  const one = each.join('\n')
  used.runs += 1
  const { errors } = runYara(used.yara, Buffer.of(), one)
  const found = errors.length === 0 ? [one] : each
  texts.set(sources, found)
  return found
}

/** Looks at the files of one message with all rules. */
export async function scannerOf(sources: Readonly<Record<string, string>>): Promise<Scan> {
  const used = await fresh()
  const rules = textsOf(used, sources)
  const findings = new Map<string, Finding>()
  let runs = 0
  let bytes = 0
  let cause: string | null = null
  return {
    look: (content, path) => {
      if (cause !== null || content.length === 0) return
      runs += rules.length
      bytes += Math.min(content.length, SCAN_BYTES_MAX)
      if (runs > RUNS_MAX || bytes > MESSAGE_BYTES_MAX) {
        findings.set('YARA_LIMIT', {
          rule: 'YARA_LIMIT',
          score: 0,
          evidence: `The YARA rules saw the first ${Math.floor(RUNS_MAX / rules.length)} files, at most ${MESSAGE_BYTES_MAX} bytes, and not ${path}.`,
        })
        return
      }
      for (const text of rules) {
        used.runs += 1
        const { matches, errors } = runYara(used.yara, content.subarray(0, SCAN_BYTES_MAX), text)
        if (errors.length > 0) cause = `A YARA rule does not compile: ${errors[0] ?? ''}`
        for (const { rule, score, about } of matches)
          if (!findings.has(rule) && findings.size < FINDINGS_MAX)
            findings.set(rule, {
              rule,
              score,
              evidence: `${path} matches the YARA rule ${rule.slice(5)}${about === '' ? '' : ` (${about})`}.`,
            })
      }
    },
    findings: () => cause ?? [...findings.values()],
  }
}

/** Contents on which rules are tried: what is slow on these is slow on mail. */
function* trials(): Generator<Buffer> {
  const size = SCAN_BYTES_MAX
  yield Buffer.alloc(size)
  yield Buffer.alloc(size, 'a')
  yield Buffer.alloc(
    size,
    'The quick brown fox jumps over 1,234,567 lazy dogs at http://www.example.com/ ',
  )
  yield Buffer.alloc(
    size,
    Buffer.from(Array.from({ length: 8_191 }, (_, at) => (at * at * 31 + at * 7) & 255)),
  )
}

/**
 * What is wrong with `source`; empty: nothing. May never return: only for a process that
 * somebody ends (yara-check.ts).
 */
export async function tryYara(source: string): Promise<readonly string[]> {
  const yara = await load()
  for (const trial of trials()) {
    const { errors } = runYara(yara, trial, source)
    if (errors.length > 0) return errors
  }
  return []
}
