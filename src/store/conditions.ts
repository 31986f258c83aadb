/** From a parsed query to the WHERE clause of a list. Every value is a parameter (faults.md J12). */
import { and, type Column, eq, gt, gte, lt, lte, not, or, type SQL, sql } from 'drizzle-orm'
import type { Comparison, Query, State, Term } from './query.ts'
import { soughtNumber } from './sightings.ts'

/** How one list names what the language can ask. Null: the list has no such thing. */
export type Searchable = {
  readonly id: Column
  readonly atMs: Column
  readonly from: readonly (Column | SQL)[]
  readonly to: (pattern: string) => SQL
  readonly subject: SQL
  readonly ip: Column
  readonly rules: Column
  readonly score: Column
  readonly sizeBytes: Column
  readonly state: (state: State) => SQL
  /** Rows of messages in which that was seen (store/sightings); null: this list does not know. */
  readonly seen: ((what: number) => SQL) | null
  /** Rows of the nodes whose name or id begins like that. */
  readonly node: (text: string) => SQL
}

/** The longest a message takes from its id to its row: `limits.dataTime` and inspection. */
const LATE_MS = 86_400_000 + 300_000

/** All terms as one condition; undefined when there is none. */
export function conditionOf(query: Query, list: Searchable): SQL | undefined {
  return and(...query.terms.map((term) => (term.not ? not(plain(term, list)) : plain(term, list))))
}

function plain(term: Term, list: Searchable): SQL {
  switch (term.field) {
    case 'is':
      return anyOf(term.values.map(list.state))
    case 'score':
      return compare(list.score, term.comparison, term.value)
    case 'size':
      return compare(list.sizeBytes, term.comparison, term.value)
    case 'after': {
      // Rows are clustered by id, and ids begin with their time: the scan ends early.
      const floor = gte(list.id, idFloor(term.atMs - LATE_MS))
      return term.not ? gte(list.atMs, term.atMs) : all(gte(list.atMs, term.atMs), floor)
    }
    case 'before':
      return lt(list.atMs, term.atMs)
    default:
      return anyOf(term.values.map((value) => textCondition(term.field, value, list)))
  }
}

type TextField = Extract<Term, { readonly values: readonly string[] }>['field']

function textCondition(field: TextField, value: string, list: Searchable): SQL {
  const pattern = `%${escaped(value)}%`
  switch (field) {
    case 'from':
      if (value === '<>') return sql`${list.from[0]} = ''`
      return anyOf(list.from.map((column) => contains(column, pattern)))
    case 'to':
      return list.to(pattern)
    case 'subject':
      return contains(list.subject, pattern)
    case 'ip':
      return contains(list.ip, `${escaped(value)}%`)
    case 'id': {
      const id = value.toLowerCase()
      return all(gte(list.id, id), lt(list.id, `${id}~`))
    }
    case 'node':
      return list.node(value)
    case 'link':
    case 'file':
      return list.seen?.(soughtNumber(field, value)) ?? sql`1 = 0`
    case 'rule':
      return contains(list.rules, `% ${escaped(value)} %`)
    default:
      return anyOf([
        ...list.from.map((column) => contains(column, pattern)),
        list.to(pattern),
        contains(list.subject, pattern),
        contains(list.ip, `${escaped(value)}%`),
        contains(list.rules, pattern),
        eq(list.id, value.toLowerCase()),
      ])
  }
}

/** LIKE folds ASCII only; what is beyond is stored in lower case and asked in lower case. */
export function contains(column: Column | SQL, pattern: string): SQL {
  return sql`${column} like ${pattern} escape '\\'`
}

function escaped(value: string): string {
  return value.toLowerCase().replace(/[\\%_]/g, '\\$&')
}

function compare(column: Column, comparison: Comparison, value: number): SQL {
  switch (comparison) {
    case '>':
      return gt(column, value)
    case '>=':
      return gte(column, value)
    case '<':
      return lt(column, value)
    case '<=':
      return lte(column, value)
    case '=':
      return eq(column, value)
  }
}

function anyOf(conditions: readonly SQL[]): SQL {
  return or(...conditions) ?? sql`1 = 0`
}

function all(...conditions: readonly SQL[]): SQL {
  return and(...conditions) ?? sql`1 = 1`
}

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** The smallest text that a message id of `wallMs` or later can have: its first 10 digits. */
export function idFloor(wallMs: number): string {
  let rest = Math.max(0, Math.floor(wallMs))
  let text = ''
  for (let digit = 0; digit < 10; digit++) {
    text = (ALPHABET[rest % 32] ?? '') + text
    rest = Math.floor(rest / 32)
  }
  return text
}

/** Lower case of a text that SQLite cannot fold by itself; null when it can. */
export function foldedOrNull(text: string | null): string | null {
  return text === null || /^[\x00-\x7f]*$/.test(text) ? null : text.toLowerCase()
}
