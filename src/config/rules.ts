/**
 * What an operator may add to detection: rules of his own, scores in place of ours, maps, YARA
 * sources. Cells of their own, so that two nodes can add at the same time. Pure.
 */
// A linear-time engine with the syntax of RE2: a pattern of an operator cannot stall an inspector.
import type { RE2JS } from 're2js'
import { RefusalError } from '../base/errors.ts'
import { namesIn, parseExpression } from './expression.ts'

/** One rule. It is found when its pattern, or its expression over other rules, holds. */
export type Rule = {
  /** Symbol style; unique among the rules of the operator. */
  readonly name: string
  /** -100..100. */
  readonly score: number
  readonly on: boolean
  /** What it says on the message page, a whole sentence; empty: the pattern speaks. */
  readonly describe: string
  readonly look: RuleLook
}

type RuleLook =
  /** `field` in lower case, or `*` for all; the pattern meets the decoded, unfolded value. */
  | { readonly kind: 'header'; readonly field: string; readonly pattern: string }
  /** The pattern meets what a reader sees. */
  | { readonly kind: 'body'; readonly pattern: string }
  /** The pattern meets each link. */
  | { readonly kind: 'link'; readonly pattern: string }
  /** The pattern meets the octets as they came, Latin-1. */
  | { readonly kind: 'raw'; readonly pattern: string }
  /** `!`, `&`, `|` and brackets over names of rules: `A & (B | !C)`. */
  | { readonly kind: 'composite'; readonly expression: string }
  /** An entry of the map is the sender, the client, the host of a link, a file's hash… */
  | { readonly kind: 'map'; readonly map: string; readonly of: MapSubject }

export const MAP_SUBJECTS = ['sender', 'author', 'client', 'link', 'file', 'recipient'] as const
export type MapSubject = (typeof MAP_SUBJECTS)[number]

export type Detection = {
  /** By name. */
  readonly rules: readonly Rule[]
  /** Scores of rules, ours and the operator's, in place of their own. */
  readonly scores: Readonly<Record<string, number>>
  /** Entries by name of the map: lower case, sorted. */
  readonly maps: Readonly<Record<string, readonly string[]>>
  /** YARA sources by name. */
  readonly yara: Readonly<Record<string, string>>
}

export const NO_DETECTION: Detection = { rules: [], scores: {}, maps: {}, yara: {} }

/** Cells of detection, by kind. */
export const DETECTION_KINDS = ['rule', 'score', 'map', 'yara'] as const
export type DetectionKind = (typeof DETECTION_KINDS)[number]

/** As rules are named, and scores by them. */
export const RULE_NAME = /^[A-Z][A-Z0-9_]{1,63}$/
/** As maps and YARA sources are named. */
export const ENTRY_NAME = /^[a-z][a-z0-9-]{0,39}$/

/** Entries of each kind in one configuration. */
export const DETECTION_MAX: Readonly<Record<DetectionKind, number>> = {
  rule: 500,
  score: 1_000,
  map: 100,
  yara: 100,
}
const PATTERN_CHARS_MAX = 500
const EXPRESSION_CHARS_MAX = 2_000
const DESCRIBE_CHARS_MAX = 200
/** Entries of one map, and octets of all of them (store/shared-row bounds a cell). */
const MAP_ENTRIES_MAX = 10_000
const MAP_CHARS_MAX = 300_000
const YARA_CHARS_MAX = 100_000
const SCORE_MAX = 100

/** Loaded with the first pattern: it is 4 MB that a gateway without rules of its own never needs. */
function engine(): typeof import('re2js') {
  return require('re2js')
}

/** A pattern as it is run: without regard to case unless it says `(?-i)`. */
export function compilePattern(pattern: string): RE2JS {
  const { RE2JS: Engine } = engine()
  return Engine.compile(pattern, Engine.CASE_INSENSITIVE)
}

/** Of an object; undefined of anything else. */
export function memberOf(raw: unknown, name: string): unknown {
  return typeof raw === 'object' && raw !== null && Object.hasOwn(raw, name)
    ? (raw as Readonly<Record<string, unknown>>)[name]
    : undefined
}

/** Name of a rule. @throws RefusalError invalid, field `name` */
export function readRuleName(raw: string): string {
  const name = raw.trim().toUpperCase()
  if (RULE_NAME.test(name)) return name
  throw refused(
    'name',
    `${shown(raw)} is no name of a rule.`,
    'Use letters, digits and _: OUR_RULE.',
  )
}

/** Name of a map or a YARA source. @throws RefusalError invalid, field `name` */
export function readEntryName(raw: string): string {
  const name = raw.trim().toLowerCase()
  if (ENTRY_NAME.test(name)) return name
  throw refused('name', `${shown(raw)} is no name.`, 'Use lower case letters, digits and dashes.')
}

/** @throws RefusalError invalid, field `score` */
export function readScore(raw: unknown): number {
  const score = typeof raw === 'string' && raw.trim() !== '' ? Number(raw) : raw
  if (typeof score === 'number' && Number.isFinite(score) && Math.abs(score) <= SCORE_MAX)
    return Math.round(score * 100) / 100
  throw refused(
    'score',
    `${shown(raw)} is no score.`,
    `Enter a number from -${SCORE_MAX} to ${SCORE_MAX}.`,
  )
}

/**
 * A rule from a form, a command or a stored cell: `{score, on, describe, look}`.
 * @throws RefusalError invalid, with the field
 */
export function readRule(rawName: string, raw: unknown): Rule {
  const name = readRuleName(rawName)
  const rule = record(raw, 'rule')
  const { on = true, describe = '' } = rule
  if (typeof on !== 'boolean') throw refused('on', 'A rule is on or off.', 'Enter true or false.')
  if (typeof describe !== 'string' || describe.length > DESCRIBE_CHARS_MAX) {
    throw refused(
      'describe',
      'What the rule says is too long.',
      `Use at most ${DESCRIBE_CHARS_MAX} characters.`,
    )
  }
  const score = readScore(rule['score'])
  return {
    name,
    score,
    on,
    describe: describe.trim(),
    look: readLook(name, record(rule['look'], 'kind')),
  }
}

function readLook(name: string, look: Readonly<Record<string, unknown>>): RuleLook {
  const { kind } = look
  switch (kind) {
    case 'header': {
      const field = typeof look['field'] === 'string' ? look['field'].trim().toLowerCase() : ''
      if (field !== '*' && !/^[\x21-\x39\x3b-\x7e]{1,100}$/.test(field))
        throw refused(
          'field',
          `${shown(look['field'])} is no header field.`,
          'Enter one like Subject, or * for all.',
        )
      return { kind, field, pattern: readPattern(look['pattern']) }
    }
    case 'body':
    case 'link':
    case 'raw':
      return { kind, pattern: readPattern(look['pattern']) }
    case 'composite': {
      const expression = typeof look['expression'] === 'string' ? look['expression'].trim() : ''
      if (expression.length > EXPRESSION_CHARS_MAX)
        throw refused(
          'expression',
          'The expression is too long.',
          `Use at most ${EXPRESSION_CHARS_MAX} characters.`,
        )
      if (namesIn(parseExpression(expression)).includes(name))
        throw refused('expression', 'A rule cannot ask for itself.', 'Name other rules.')
      return { kind, expression }
    }
    case 'map': {
      const of = MAP_SUBJECTS.find((subject) => subject === look['of'])
      if (of === undefined)
        throw refused(
          'of',
          `${shown(look['of'])} is nothing to look up.`,
          `Choose from ${MAP_SUBJECTS.join(', ')}.`,
        )
      return { kind, map: readEntryName(String(look['map'] ?? '')), of }
    }
    default:
      throw refused(
        'kind',
        `${shown(kind)} is no kind of rule.`,
        'Choose from header, body, link, raw, composite, map.',
      )
  }
}

function readPattern(raw: unknown): string {
  const pattern = typeof raw === 'string' ? raw : ''
  if (pattern === '' || pattern.length > PATTERN_CHARS_MAX)
    throw refused(
      'pattern',
      'A pattern has 1 to 500 characters.',
      'Make several rules of a longer one.',
    )
  try {
    compilePattern(pattern)
    return pattern
  } catch (error) {
    if (!(error instanceof engine().RE2JSException)) throw error
    throw refused(
      'pattern',
      `The pattern cannot be read: ${error.message.replace(/^error parsing regexp: /, '').replace('`(?i)', '`')}.`,
      'The syntax is that of RE2: no lookaround and no backreferences.',
    )
  }
}

/** Entries of a map, a line or an item each. @throws RefusalError invalid, field `entries` */
export function readMap(raw: unknown): readonly string[] {
  const items: readonly unknown[] =
    typeof raw === 'string' ? raw.split(/[\r\n]+/) : Array.isArray(raw) ? raw : []
  const words = items.map((item) =>
    typeof item === 'string' ? item.replace(/#.*$/, '').trim().toLowerCase() : '',
  )
  const entries = [...new Set(words.filter((word) => word !== ''))].sort()
  const chars = entries.reduce((sum, entry) => sum + entry.length + 3, 0)
  if (entries.length > MAP_ENTRIES_MAX || chars > MAP_CHARS_MAX)
    throw refused(
      'entries',
      'The map is too large.',
      `Use at most ${MAP_ENTRIES_MAX} entries and ${MAP_CHARS_MAX} characters; make several.`,
    )
  return entries
}

/** @throws RefusalError invalid, field `source` */
export function readYara(raw: unknown): string {
  if (typeof raw === 'string' && raw.trim() !== '' && raw.length <= YARA_CHARS_MAX) return raw
  throw refused('source', 'A YARA source is text.', `Use at most ${YARA_CHARS_MAX} characters.`)
}

function record(raw: unknown, field: string): Readonly<Record<string, unknown>> {
  if (typeof raw === 'object' && raw !== null && !Array.isArray(raw))
    return raw as Readonly<Record<string, unknown>>
  throw refused(field, 'Something is missing here.', 'Fill in the whole rule.')
}

function shown(raw: unknown): string {
  return JSON.stringify(raw ?? '').slice(0, 100)
}

function refused(field: string, message: string, advice: string): RefusalError {
  return new RefusalError('invalid', field, message, advice)
}
