/** Rules of the operator, score overrides and maps, as every inspector gets them: plain data. */

/** One rule. It is found when its pattern, or its expression over other rules, holds. */
export type Rule = {
  /** Symbol style; unique among the rules of the operator. */
  readonly name: string
  readonly score: number
  readonly on: boolean
  /** What it says on the message page, a whole sentence; empty: the pattern speaks. */
  readonly describe: string
  readonly look: RuleLook
}

export type RuleLook =
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
  | {
      readonly kind: 'map'
      readonly map: string
      readonly of: 'sender' | 'author' | 'client' | 'link' | 'file' | 'recipient'
    }

export type Detection = {
  readonly rules: readonly Rule[]
  /** Scores of rules, ours and the operator's, in place of their own. */
  readonly scores: Readonly<Record<string, number>>
  /** Entries by name of the map. */
  readonly maps: Readonly<Record<string, readonly string[]>>
  /** YARA sources by name. */
  readonly yara: Readonly<Record<string, string>>
}

export const NO_DETECTION: Detection = { rules: [], scores: {}, maps: {}, yara: {} }
