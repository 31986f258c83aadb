/**
 * Every rule that this gateway knows by itself: what it usually weighs and what it says. For the
 * table of scores; what an inspector finds may weigh more or less by what it saw.
 */

export type RuleFact = {
  readonly rule: string
  /** The usual weight. */
  readonly score: number
  /** A whole sentence. */
  readonly says: string
}

export const CATALOGUE: readonly RuleFact[] = []
