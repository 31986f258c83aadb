/** What a topic is: words that come together where somebody wants something, and what that weighs. */

export type Topic = {
  readonly rule: string
  /** What the mail speaks of, for the evidence: "The text speaks of …". */
  readonly about: string
  /** As words.ts reads them, one a line; English first, then German, French, Spanish, Italian. */
  readonly phrases: string
  /** Points of phrases that were found, and the score from there on; ascending. */
  readonly steps: readonly (readonly [points: number, score: number])[]
}
