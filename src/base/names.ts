/** Questions to the name servers as data: what an inspector may ask and what it is told. */

export type DnsType = 'A' | 'AAAA' | 'MX' | 'TXT' | 'PTR'

export type DnsQuestion = {
  /** Without the trailing dot; compared in lower case. At most 253 octets. */
  readonly name: string
  readonly type: DnsType
}

/**
 * `found`: at least one record; TXT with its pieces joined (Latin-1), MX as `PREFERENCE HOST`, names
 * without the trailing dot. `absent`: the name or the type does not exist. `failed`: nobody knows;
 * `leftOut`: nobody was asked, because the list that would know cannot be believed (base/list-names).
 */
export type DnsAnswer =
  | { readonly status: 'found'; readonly records: readonly string[] }
  | { readonly status: 'absent' }
  | { readonly status: 'failed'; readonly cause: string; readonly leftOut?: true }

/** Answers by `keyOf` of their question. */
export type DnsAnswers = Readonly<Record<string, DnsAnswer>>

export function keyOf({ name, type }: DnsQuestion): string {
  return `${type} ${name.toLowerCase()}`
}

export interface Names {
  /**
   * Never rejects: what went wrong is an answer that failed. Ends within a few seconds. `fresh`:
   * not from memory, for somebody who has just published what is asked for.
   */
  query(question: DnsQuestion, fresh?: 'fresh'): Promise<DnsAnswer>
}
