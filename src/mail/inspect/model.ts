/** What was learnt, as an inspector reads it: counts of tokens in a file that the main process writes. */

export type Counts = { readonly spam: number; readonly ham: number }

export interface Model {
  /** Samples, in all and of the domain. */
  samples(domain: string | null): Counts
  /** How many samples have the token; `domain` null: all of them. */
  count(token: bigint, domain: string | null): Counts
}
