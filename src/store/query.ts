/**
 * The query language of the lists (design: ui/README, Query). Pure. A mistake never empties a
 * list: the part that is not understood is named, the rest applies.
 */

/** Longest query text that is read; the rest is named as a mistake. */
const TEXT_CHARACTERS_MAX = 1_000
/** Most terms, and most alternatives of one term. */
const TERMS_MAX = 30
const VALUES_MAX = 20

const STATES = [
  'held',
  'delivered',
  'rejected',
  'deferred',
  'waiting',
  'unknown',
  'released',
  'bounced',
  'deleted',
] as const
export type State = (typeof STATES)[number]

const TEXT_FIELDS = ['from', 'to', 'subject', 'ip', 'id', 'node', 'rule', 'link', 'file'] as const
export const FIELDS = [...TEXT_FIELDS, 'is', 'score', 'size', 'after', 'before'] as const
export type Field = (typeof FIELDS)[number]

export type Comparison = '>' | '>=' | '<' | '<=' | '='

/** One condition; all of a query must hold. `not` turns it round. */
export type Term = { readonly not: boolean } & (
  | {
      readonly field: 'any' | (typeof TEXT_FIELDS)[number]
      /** One of them; as typed. Matches anywhere in the text, without regard to case. */
      readonly values: readonly string[]
    }
  | { readonly field: 'is'; readonly values: readonly State[] }
  | { readonly field: 'score' | 'size'; readonly comparison: Comparison; readonly value: number }
  | { readonly field: 'after' | 'before'; readonly atMs: number }
)

export type Query = {
  readonly terms: readonly Term[]
  /** The query read back: `mails from “a”, held, with a score above 8`. */
  readonly words: string
  /** Whole sentences, one for each part that was not understood. */
  readonly mistakes: readonly string[]
}

/**
 * Reads any text; never throws. Relative times (`after:24h`) count back from `nowMs`. UTC.
 * `states`: what `is:` may ask of this list; `fields`: what else.
 */
export function parseQuery(
  text: string,
  nowMs: number,
  states: readonly State[] = STATES,
  fields: readonly Field[] = FIELDS,
): Query {
  const terms: Term[] = []
  const mistakes: string[] = []
  if (text.length > TEXT_CHARACTERS_MAX) {
    mistakes.push(`Only the first ${TEXT_CHARACTERS_MAX} characters of the search were read.`)
  }
  const pieces = split(text.slice(0, TEXT_CHARACTERS_MAX))
  if (pieces.length > TERMS_MAX) mistakes.push(`Only the first ${TERMS_MAX} words were used.`)
  for (const piece of pieces.slice(0, TERMS_MAX)) {
    const term = readTerm(piece, nowMs, states, fields)
    if (typeof term === 'string') mistakes.push(term)
    else terms.push(term)
  }
  return { terms, words: inWords(terms), mistakes }
}

/** Parts at white space, but not inside double quotes. */
function split(text: string): readonly string[] {
  return text.match(/(?:"[^"]*"?|[^\s"])+/g) ?? []
}

/** A term, or the sentence that says why it is none. */
function readTerm(
  piece: string,
  nowMs: number,
  states: readonly State[],
  fields: readonly Field[],
): Term | string {
  const not = /^-./.test(piece)
  const body = not ? piece.slice(1) : piece
  const [, name, rest] = /^([a-z]+):(.*)$/is.exec(body) ?? []
  const field = name?.toLowerCase()
  // `Re:` and `http://x` are words; `form:x` is a slip.
  const isWord =
    field === undefined || rest === undefined || (!isField(field) && /^(?:$|\/\/)/.test(rest))
  if (isWord) {
    const values = alternatives(body)
    return values.length === 0 ? `${shown(piece)} holds no word.` : { field: 'any', values, not }
  }
  if (!isField(field) || !fields.includes(field)) {
    return `${shown(`${field}:`)} is not known here; use ${fields.map((known) => `${known}:`).join(' ')}.`
  }
  const values = alternatives(rest)
  if (values.length === 0) return `${shown(`${field}:`)} needs a value after the colon.`
  switch (field) {
    case 'is':
      return readStates(values, states, not)
    case 'score':
    case 'size':
      return readComparison(field, values.join(','), not)
    case 'after':
    case 'before': {
      const atMs = readTime(values.join(','), nowMs)
      if (atMs === null) {
        return `${shown(body)} is not a time; write ${field}:24h, ${field}:7d or ${field}:2026-03-11.`
      }
      return { field, atMs, not }
    }
    default:
      return { field, values, not }
  }
}

function isField(text: string): text is Field {
  return (FIELDS as readonly string[]).includes(text)
}

/** `a,b` and `"a b",c`, without quotes and empty parts. */
function alternatives(text: string): readonly string[] {
  const parts = text.match(/(?:"[^"]*"?|[^,"])+/g) ?? []
  return parts
    .map((part) => part.replaceAll('"', '').trim())
    .filter((part) => part !== '')
    .slice(0, VALUES_MAX)
}

function readStates(
  values: readonly string[],
  known: readonly State[],
  not: boolean,
): Term | string {
  const states: State[] = []
  for (const value of values) {
    const state = known.find((candidate) => candidate === value.toLowerCase())
    if (state === undefined)
      return `${shown(`is:${value}`)} is not known here; use ${known.join(', ')}.`
    states.push(state)
  }
  return { field: 'is', values: states, not }
}

const UNITS: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

function readComparison(field: 'score' | 'size', text: string, not: boolean): Term | string {
  const match = /^(>=|<=|>|<|=)?\s*(-?\d{1,12}(?:\.\d{1,6})?)\s*(?:([kmg])?b?)$/i.exec(text)
  const unit = match?.[3]?.toLowerCase() ?? ''
  if (match === null || (field === 'score' && /[a-z]/i.test(text))) {
    const example = field === 'score' ? 'score:>8' : 'size:>10MB'
    return `${shown(`${field}:${text}`)} is not a number; write ${example}.`
  }
  const comparison = (match[1] ?? '=') as Comparison
  return { field, comparison, value: Number(match[2]) * (UNITS[unit] ?? 1), not }
}

const SPANS: Readonly<Record<string, number>> = {
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
}

/** `30m 24h 7d 2w` ago, `today`, `yesterday`, `2026-03-11`, `2026-03-11T14:30`; null: none. */
function readTime(text: string, nowMs: number): number | null {
  const midnightMs = nowMs - (nowMs % 86_400_000)
  const lower = text.toLowerCase()
  if (lower === 'today') return midnightMs
  if (lower === 'yesterday') return midnightMs - 86_400_000
  const span = /^(\d{1,6})([mhdw])$/.exec(lower)
  if (span !== null) return nowMs - Number(span[1]) * (SPANS[span[2] ?? ''] ?? 0)
  const date = /^(\d{4})-(\d\d)-(\d\d)(?:[t ](\d\d):(\d\d)(?::(\d\d))?z?)?$/.exec(lower)
  if (date === null) return null
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = date
    .slice(1)
    .map((digits) => Number(digits ?? 0))
  const atMs = Date.UTC(year, month - 1, day, hour, minute, second)
  // Date.UTC rolls 31 February over into March; such a date is a slip.
  return hour > 23 || minute > 59 || !isoMinute(atMs).startsWith(date[0].slice(0, 10)) ? null : atMs
}

/** `2026-03-11 14:30`. Arithmetic only: the proleptic calendar needs no clock. */
function isoMinute(atMs: number): string {
  const days = Math.floor(atMs / 86_400_000)
  const minutes = Math.floor((atMs - days * 86_400_000) / 60_000)
  // Howard Hinnant's civil_from_days: eras of 400 years that begin on 1 March.
  const z = days + 719_468
  const era = Math.floor(z / 146_097)
  const dayOfEra = z - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra -
      Math.floor(dayOfEra / 1_460) +
      Math.floor(dayOfEra / 36_524) -
      Math.floor(dayOfEra / 146_096)) /
      365,
  )
  const dayOfYear =
    dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const shifted = Math.floor((5 * dayOfYear + 2) / 153)
  const day = dayOfYear - Math.floor((153 * shifted + 2) / 5) + 1
  const month = shifted < 10 ? shifted + 3 : shifted - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  const two = (value: number) => String(value).padStart(2, '0')
  return `${String(year).padStart(4, '0')}-${two(month)}-${two(day)} ${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`
}

const BEFORE_TEXT: Readonly<Record<string, string>> = {
  any: 'with',
  from: 'from',
  to: 'to',
  subject: 'with the subject',
  ip: 'from the address',
  id: 'with the id',
  node: 'on node',
  rule: 'with the rule',
  link: 'with a link to',
  file: 'with the file',
}

const COMPARED: Readonly<Record<Comparison, string>> = {
  '>': 'above',
  '>=': 'at least',
  '<': 'below',
  '<=': 'at most',
  '=': 'of',
}

function inWords(terms: readonly Term[]): string {
  if (terms.length === 0) return 'all mails'
  return `mails ${terms.map((term) => (term.not ? `not ${phrase(term)}` : phrase(term))).join(', ')}`
}

function phrase(term: Term): string {
  switch (term.field) {
    case 'is':
      return term.values
        .map((state) => (state === 'unknown' ? 'with an unknown check' : state))
        .join(' or ')
    case 'score':
      return `with a score ${COMPARED[term.comparison]} ${term.value}`
    case 'size':
      return `with a size ${COMPARED[term.comparison]} ${sizeInWords(term.value)}`
    case 'after':
      return `since ${isoMinute(term.atMs)} UTC`
    case 'before':
      return `before ${isoMinute(term.atMs)} UTC`
    default:
      return `${BEFORE_TEXT[term.field]} ${term.values.map((value) => `“${value}”`).join(' or ')}`
  }
}

function sizeInWords(bytes: number): string {
  for (const [unit, name] of [
    ['g', 'GB'],
    ['m', 'MB'],
    ['k', 'KB'],
  ] as const) {
    const factor = UNITS[unit] ?? 1
    if (bytes >= factor) return `${Math.round((bytes / factor) * 10) / 10} ${name}`
  }
  return `${bytes} bytes`
}

function shown(text: string): string {
  return `“${text.length > 60 ? `${text.slice(0, 57)}…` : text}”`
}
