/**
 * `Authentication-Results` (RFC 8601): ours, and those of others that say they are ours. Readers
 * behind us believe the field by its name alone, so a stranger's is cut off.
 */

import type { Header } from '../../../message/header.ts'
import type { AuthResult, Cut } from '../../../message/verdict.ts'
import type { InspectConfig } from '../look.ts'

const NAME = 'authentication-results'

/** Where a field stands in the raw octets, folds and line end included. */
export type FieldSpan = { readonly name: string; readonly start: number; readonly end: number }

/** Fields of the header that ends at `bodyStart`, as message/header reads them. */
export function fieldSpans(raw: Buffer, bodyStart: number): readonly FieldSpan[] {
  const spans: { name: string; start: number; end: number }[] = []
  let at = 0
  while (at < bodyStart) {
    const feed = raw.indexOf(10, at)
    const end = feed < 0 || feed >= bodyStart ? bodyStart : feed + 1
    const first = raw[at]
    const last = spans.at(-1)
    if ((first === 32 || first === 9) && last !== undefined && last.end === at) last.end = end
    else {
      const colon = raw.indexOf(58, at)
      if (colon > at && colon < end) {
        const name = raw
          .toString('latin1', at, colon)
          .replace(/[ \t\0]+/g, '')
          .toLowerCase()
        spans.push({ name, start: at, end })
      }
    }
    at = end
  }
  return spans
}

/** `raw` without `cuts`, which are in order and apart. */
export function without(raw: Buffer, cuts: readonly Cut[]): Buffer {
  const pieces: Buffer[] = []
  let at = 0
  for (const [start, length] of cuts) {
    pieces.push(raw.subarray(at, start))
    at = start + length
  }
  return Buffer.concat([...pieces, raw.subarray(at)])
}

/** Where results stand that are said to be of this gateway or of a host of our domains. */
export function forgedResults(
  raw: Buffer,
  header: Header,
  { authority, domains }: Pick<InspectConfig, 'authority' | 'domains'>,
): readonly Cut[] {
  if (header.fields.every(({ name }) => name !== NAME)) return []
  const ours = [authority.toLowerCase(), ...domains]
  return fieldSpans(raw, header.bodyStart)
    .filter(({ name, start, end }) => {
      if (name !== NAME) return false
      const text = raw.toString('latin1', raw.indexOf(58, start) + 1, end).toLowerCase()
      return claimants(text).some((name) =>
        ours.some((our) => name === our || name.endsWith(`.${our}`)),
      )
    })
    .map(({ start, end }) => [start, end - start])
}

/** Whom a reader may take for the author of results: strict ones skip comments, others do not. */
function claimants(text: string): readonly string[] {
  const bare = text.replace(/\\/g, '')
  let outside = bare
  for (let before = ''; before !== outside; ) {
    before = outside
    outside = outside.replace(/\([^()]*\)/g, ' ')
  }
  return [outside, bare].map((each) => {
    const word = each.split(/[\s;()"/]+/).find((part) => part !== '') ?? ''
    return word.replace(/\.$/, '')
  })
}

/** One result with what it is about, e.g. `['header.d', 'example.com']`. */
export type Resinfo = Pick<AuthResult, 'method' | 'result'> & {
  readonly properties: readonly (readonly [name: string, value: string])[]
}

/** Characters of one value. */
const VALUE_CHARS_MAX = 255

/** The whole field with CRLF, folded before each method: `Authentication-Results: us; spf=pass …`. */
export function resultsField(authority: string, results: readonly Resinfo[]): string {
  const lines = results.map(({ method, result, properties }) =>
    [
      `${method}=${result}`,
      ...properties
        .filter(([, value]) => value !== '')
        .map(([name, value]) => `${name}=${pvalue(value)}`),
    ].join(' '),
  )
  const body = lines.length === 0 ? [' none'] : lines.map((line) => `\r\n\t${line}`)
  return `Authentication-Results: ${authority};${body.join(';')}\r\n`
}

/** RFC 8601 section 2.2: a token or `local@domain` as it stands, anything else quoted. */
function pvalue(text: string): string {
  const clean = text.replace(/[^\x21-\x7e]/g, '?').slice(0, VALUE_CHARS_MAX)
  if (/^[\w!#$%&'*+.^`{|}~-]*@?[\w!#$%&'*+.^`{|}~-]+$/.test(clean)) return clean
  return `"${clean.replace(/["\\]/g, '?')}"`
}
