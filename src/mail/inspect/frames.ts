/**
 * The pipe between the pool and a child: length-prefixed frames, a JSON head and raw bytes.
 * The parent believes nothing that a child says: answers are checked, bounded and clamped.
 */
import type { DnsAnswers, DnsQuestion, DnsType } from '../../base/names.ts'
import { isCount } from '../../base/raw.ts'
import type { Extent } from '../../message/body.ts'
import { plainLine } from '../../message/header.ts'
import { readSample, type Sample, type SampleText } from '../../message/learned.ts'
import {
  type Cut,
  type Finding,
  type Insight,
  type MessageFacts,
  NO_FACTS,
  NO_INSIGHT,
  NOTHING_ONWARD,
  type Onward,
  type ToSign,
  type Unsigned,
} from '../../message/verdict.ts'
import type { Answer, Seen } from './answers.ts'
import type { Preview } from './contract.ts'
import { type InspectConfig, QUESTIONS_MAX, type SessionFacts } from './look.ts'

/** Parent to child. */
export type Order =
  | {
      readonly kind: 'inspect'
      readonly job: number
      readonly inspectors: readonly string[]
      readonly session: SessionFacts
      readonly answers: DnsAnswers
      /** The body lies in these files; null: it is the raw part of the frame. */
      readonly extents: readonly Extent[] | null
    }
  | {
      readonly kind: 'preview' | 'sample'
      readonly job: number
      readonly extents: readonly Extent[] | null
    }
  /** For all jobs from here on. No report follows. */
  | { readonly kind: 'config'; readonly config: InspectConfig }
  /** Nothing to do for a while: give memory back. No report follows. */
  | { readonly kind: 'rest' }

/** Child to parent. */
export type Report =
  /** `missing`: parts of the confinement that this host does not offer. */
  | { readonly kind: 'hello'; readonly missing: readonly string[] }
  /** Answers so far; `seen` comes with the last ones and ends the job. */
  | {
      readonly kind: 'answers'
      readonly job: number
      readonly answers: readonly Answer[]
      readonly seen: Seen | null
    }
  | { readonly kind: 'preview'; readonly job: number; readonly preview: Preview }
  | { readonly kind: 'sample'; readonly job: number; readonly sample: Sample }
  /** The job failed as a whole, or the child could not start (job 0). */
  | { readonly kind: 'failed'; readonly job: number; readonly cause: string }

/** As it is written: a sample as JSON. */
export type Said = Exclude<Report, { kind: 'sample' }> | SaidSample
type SaidSample = { readonly kind: 'sample'; readonly job: number; readonly sample: SampleText }

export type Frame = { readonly head: unknown; readonly raw: Buffer }

/** Largest frame to a child: a body in memory. Larger bodies go as extents. */
export const ORDER_BYTES_MAX = 1_200_000_000
/** Largest frame from a child: a preview with its text and markup. */
export const REPORT_BYTES_MAX = 8 * 1024 * 1024

const PREFIX_BYTES = 8
const NO_BYTES = Buffer.alloc(0)

/** u32 length of the rest, u32 length of the head (both little endian), head, raw bytes. */
export function encodeFrame(head: Order | Said, raw: Uint8Array = NO_BYTES): Buffer {
  const json = JSON.stringify(head)
  const headBytes = Buffer.byteLength(json)
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + headBytes + raw.length)
  frame.writeUInt32LE(4 + headBytes + raw.length, 0)
  frame.writeUInt32LE(headBytes, 4)
  frame.write(json, PREFIX_BYTES, 'utf8')
  frame.set(raw, PREFIX_BYTES + headBytes)
  return frame
}

/** Cuts a stream of chunks into frames. */
export class FrameReader {
  readonly #bytesMax: number
  #buffer: Buffer = NO_BYTES
  #start = 0
  #end = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** Room for at least `bytes` more; fill it and call `filled`. Frames read before are void. */
  room(bytes: number): Buffer {
    if (this.#start === this.#end) {
      this.#start = 0
      this.#end = 0
    }
    if (this.#buffer.length - this.#end < bytes) {
      const have = this.#end - this.#start
      const wanted = Math.max(have + bytes, this.#wanted())
      const next = wanted <= this.#buffer.length ? this.#buffer : Buffer.allocUnsafeSlow(wanted)
      next.set(this.#buffer.subarray(this.#start, this.#end), 0)
      this.#buffer = next
      this.#start = 0
      this.#end = have
    }
    return this.#buffer.subarray(this.#end)
  }

  filled(bytes: number): void {
    this.#end += bytes
  }

  push(chunk: Uint8Array): void {
    this.room(chunk.length).set(chunk)
    this.filled(chunk.length)
  }

  /**
   * The next whole frame, or null. Its raw part is a view that the next `room` or `push` voids.
   * @throws Error on a length that no frame has, or a head that is no JSON
   */
  next(): Frame | null {
    const have = this.#end - this.#start
    if (have < PREFIX_BYTES) return null
    const rest = this.#buffer.readUInt32LE(this.#start)
    const headBytes = this.#buffer.readUInt32LE(this.#start + 4)
    if (rest > this.#bytesMax || headBytes + 4 > rest)
      throw new Error('a frame has a length that cannot be')
    if (have < 4 + rest) return null
    const headAt = this.#start + PREFIX_BYTES
    const head: unknown = JSON.parse(this.#buffer.toString('utf8', headAt, headAt + headBytes))
    const raw = this.#buffer.subarray(headAt + headBytes, this.#start + 4 + rest)
    this.#start += 4 + rest
    return { head, raw }
  }

  /** Gives back a buffer that one large frame has made. */
  shrink(bytesMax: number): void {
    if (this.#start === this.#end && this.#buffer.length > bytesMax) this.#buffer = NO_BYTES
  }

  /** Bytes that the frame under way needs in all. */
  #wanted(): number {
    if (this.#end - this.#start < 4) return 0
    const rest = this.#buffer.readUInt32LE(this.#start)
    return rest > this.#bytesMax ? 0 : 4 + rest
  }
}

/** Findings of one answer that are kept. */
const FINDINGS_MAX = 200
const EVIDENCE_CHARS_MAX = 500

/** The report in a frame from a child, or null when it is none. */
export function readReport(head: unknown): Report | null {
  if (!isRecord(head)) return null
  const job = head['job']
  switch (head['kind']) {
    case 'hello':
      return { kind: 'hello', missing: textsOf(head['missing']) }
    case 'failed':
      return typeof job === 'number'
        ? { kind: 'failed', job, cause: textOf(head['cause'], 200) }
        : null
    case 'answers': {
      const answers = head['answers']
      if (typeof job !== 'number' || !Array.isArray(answers)) return null
      const read = answers.map(readAnswer)
      if (read.some((answer) => answer === null)) return null
      return {
        kind: 'answers',
        job,
        answers: read.filter((answer) => answer !== null),
        seen: readSeen(head['seen']),
      }
    }
    case 'preview': {
      const preview = readPreview(head['preview'])
      return typeof job === 'number' && preview !== null ? { kind: 'preview', job, preview } : null
    }
    case 'sample': {
      const said = head['sample']
      const sample = isRecord(said) ? readSample(said) : null
      if (typeof job !== 'number' || sample === null) return null
      return { kind: 'sample', job, sample: { ...sample, subject: textOf(sample.subject, 200) } }
    }
    default:
      return null
  }
}

function readAnswer(value: unknown): Answer | null {
  if (!isRecord(value)) return null
  const inspector = textOf(value['inspector'], 64)
  const questions = value['questions']
  if (Array.isArray(questions)) return { inspector, questions: readQuestions(questions) }
  const findings = value['findings']
  if (!Array.isArray(findings)) return { inspector, cause: textOf(value['cause'], 200) }
  if (findings.length > FINDINGS_MAX) return null
  const read = findings.map(readFinding)
  if (read.some((finding) => finding === null)) return null
  return { inspector, findings: read.filter((finding) => finding !== null) }
}

function readFinding(value: unknown): Finding | null {
  if (!isRecord(value)) return null
  const { rule, score } = value as { rule?: unknown; score?: unknown }
  if (typeof rule !== 'string' || !/^[A-Z][A-Z0-9_]{1,63}$/.test(rule)) return null
  if (typeof score !== 'number' || !Number.isFinite(score)) return null
  return {
    rule,
    score: Math.min(100, Math.max(-100, score)),
    evidence: textOf(value['evidence'], EVIDENCE_CHARS_MAX),
  }
}

const DNS_TYPES: readonly DnsType[] = ['A', 'AAAA', 'MX', 'TXT', 'PTR']

/** What is no name is not asked: the inspector never gets an answer, and is unknown. */
function readQuestions(values: readonly unknown[]): readonly DnsQuestion[] {
  return values.slice(0, QUESTIONS_MAX).flatMap((value) => {
    if (!isRecord(value)) return []
    const type = DNS_TYPES.find((each) => each === value['type'])
    const name = value['name']
    const isName = typeof name === 'string' && /^[\x21-\x7e]{1,253}$/.test(name)
    return type === undefined || !isName ? [] : [{ name, type }]
  })
}

function readSeen(value: unknown): Seen | null {
  if (!isRecord(value)) return null
  return {
    facts: readFacts(value['facts']),
    insight: readInsight(value['insight']),
    onward: readOnward(value['onward']),
  }
}

const METHODS = ['spf', 'dkim', 'dmarc', 'arc', 'iprev'] as const

function readInsight(value: unknown): Insight {
  if (!isRecord(value)) return NO_INSIGHT
  const { tree } = value
  return {
    tree: typeof tree === 'string' && HASH.test(tree) ? tree : null,
    authentication: recordsOf(value['authentication'], 20).flatMap((one) => {
      const method = METHODS.find((each) => each === one['method'])
      if (method === undefined) return []
      const { result, about, evidence } = one
      return [
        {
          method,
          result: textOf(result, 20),
          about: textOf(about, 255),
          evidence: textOf(evidence, EVIDENCE_CHARS_MAX),
        },
      ]
    }),
    authenticated: textsOf(value['authenticated']).slice(0, 5),
    urls: Array.isArray(value['urls'])
      ? value['urls'].slice(0, 100).map((url: unknown) => textOf(url, 500))
      : [],
    files: recordsOf(value['files'], 50).flatMap((file) => {
      const { sha256, type, sizeBytes, path } = file
      if (typeof sha256 !== 'string' || !HASH.test(sha256)) return []
      return [
        {
          path: textOf(path, 200),
          type: typeof type === 'string' ? textOf(type, 40) : null,
          sizeBytes: isCount(sizeBytes) ? sizeBytes : 0,
          sha256,
        },
      ]
    }),
  }
}

const HASH = /^[0-9a-f]{64}$/
const FIELDS_CHARS_MAX = 65_536
const TO_SIGN_CHARS_MAX = 262_144

function readOnward(value: unknown): Onward {
  if (!isRecord(value)) return NOTHING_ONWARD
  const { fields } = value
  return {
    cuts: readCuts(value['cuts']),
    fields: typeof fields === 'string' && isHeader(fields) ? fields : '',
    toSign: recordsOf(value['toSign'], 10).flatMap((one) => readToSign(one) ?? []),
  }
}

function readToSign(one: Record<string, unknown>): ToSign | null {
  const key = { domain: textOf(one['domain'], 253), selector: textOf(one['selector'], 253) }
  if (one['kind'] === 'dkim') {
    const unsigned = readUnsigned(one)
    return unsigned === null ? null : { ...key, kind: 'dkim', ...unsigned }
  }
  const { kind, results } = one
  const [message, seal] = [readUnsigned(one['message']), readUnsigned(one['seal'])]
  if (kind !== 'arc' || message === null || seal === null || !isField(results)) return null
  return { ...key, kind, results, message, seal }
}

function readUnsigned(value: unknown): Unsigned | null {
  if (!isRecord(value)) return null
  const { field, text } = value
  if (typeof text !== 'string' || text.length > TO_SIGN_CHARS_MAX || !isField(field)) return null
  return { field, text }
}

/** A field or more, without the line end of the last. */
function isField(value: unknown): value is string {
  return typeof value === 'string' && isHeader(`${value}\r\n`)
}

/** In order and apart from each other; else none: a body must not lose what nobody named. */
function readCuts(value: unknown): readonly Cut[] {
  if (!Array.isArray(value) || value.length > 100) return []
  const cuts: Cut[] = []
  let at = 0
  for (const cut of value as readonly unknown[]) {
    if (!Array.isArray(cut)) return []
    const [offset, length] = cut as readonly unknown[]
    if (!isCount(offset) || !isCount(length) || offset < at) return []
    cuts.push([offset, length])
    at = offset + length
  }
  return cuts
}

/** Whole fields that cannot end the header or begin a body. */
function isHeader(text: string): boolean {
  if (text === '') return true
  if (text.length > FIELDS_CHARS_MAX || !text.endsWith('\r\n')) return false
  const lines = text.slice(0, -2).split('\r\n')
  const isField = /^[\x21-\x39\x3b-\x7e]+:/
  return lines.every(
    (line, index) =>
      !/[\r\n\0]/.test(line) &&
      line.trim() !== '' &&
      (isField.test(line) || (index > 0 && /^[ \t]/.test(line))),
  )
}

function readFacts(value: unknown): MessageFacts {
  if (!isRecord(value)) return NO_FACTS
  const fact = (name: string): string | null => {
    const text = value[name]
    return typeof text === 'string' ? plainLine(text, 500) : null
  }
  const authors = value['authors']
  return {
    subject: fact('subject'),
    from: fact('from'),
    messageId: fact('messageId'),
    authors: Array.isArray(authors)
      ? authors.slice(0, 20).map((author: unknown) => textOf(author, 400))
      : [],
  }
}

/** Bounds of contract.ts `Preview`. */
const PREVIEW_HEADERS_MAX = 500
const PREVIEW_TEXT_MAX = 256 * 1024
const PREVIEW_HTML_MAX = 512 * 1024
const PREVIEW_FILES_MAX = 1_000

function readPreview(value: unknown): Preview | null {
  if (!isRecord(value)) return null
  const long = (name: string, max: number): string | null => {
    const text = value[name]
    return typeof text === 'string' ? text.slice(0, max) : null
  }
  return {
    subject: long('subject', 1_000),
    from: long('from', 4_000),
    to: long('to', 4_000),
    date: long('date', 200),
    headers: recordsOf(value['headers'], PREVIEW_HEADERS_MAX).map((header) => ({
      name: textOf(header['name'], 200),
      value: textOf(header['value'], 8_000),
    })),
    text: long('text', PREVIEW_TEXT_MAX),
    html: long('html', PREVIEW_HTML_MAX),
    attachments: recordsOf(value['attachments'], PREVIEW_FILES_MAX).map((file) => ({
      name: textOf(file['name'], 500),
      type: textOf(file['type'], 200),
      sizeBytes: typeof file['sizeBytes'] === 'number' ? file['sizeBytes'] : 0,
      sha256: textOf(file['sha256'], 64),
    })),
    notes: textsOf(value['notes']),
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function recordsOf(value: unknown, max: number): readonly Record<string, unknown>[] {
  return Array.isArray(value) ? value.slice(0, max).filter(isRecord) : []
}

function textOf(value: unknown, charsMax: number): string {
  return typeof value === 'string' ? plainLine(value, charsMax) : ''
}

function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.slice(0, 50).map((text) => textOf(text, 500)) : []
}
