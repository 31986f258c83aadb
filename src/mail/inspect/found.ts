/** What is found in many files of one message, told in one finding a rule. */
import type { Finding } from '../../message/verdict.ts'

/** Facts of one rule that are told; the first ones tell enough. */
const FACTS_MAX = 3

/** One finding a rule: the worst score, with the first facts as evidence, in the order of arrival. */
export class Found {
  readonly #byRule = new Map<string, { score: number; facts: string[] }>()

  /** `fact`: a whole sentence. A score of 0 is told and weighs nothing. */
  add(rule: string, score: number, fact: string): void {
    const known = this.#byRule.get(rule) ?? { score: 0, facts: [] }
    if (known.facts.length < FACTS_MAX && !known.facts.includes(fact)) known.facts.push(fact)
    known.score = Math.max(known.score, score)
    this.#byRule.set(rule, known)
  }

  list(): readonly Finding[] {
    return [...this.#byRule].map(([rule, { score, facts }]) => ({
      rule,
      score,
      evidence: facts.join(' '),
    }))
  }
}
