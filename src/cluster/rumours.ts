/** The words that still go round: each is sent a bounded number of times, then it is known. */
import type { NodeId } from '../base/ids.ts'
import type { Word } from './letter.ts'

/** Per member and power of ten of their number (SWIM, Das et al. 2002, section 4.1). */
const SENDINGS = 4

export class Rumours {
  /** One word a node: a later one takes the place of the earlier. */
  readonly #left = new Map<NodeId, { readonly word: Word; left: number }>()

  get isEmpty(): boolean {
    return this.#left.size === 0
  }

  spread(word: Word, members: number): void {
    this.#left.delete(word.node)
    this.#left.set(word.node, { word, left: SENDINGS * Math.ceil(Math.log10(members + 1)) })
  }

  forget(node: NodeId): void {
    this.#left.delete(node)
  }

  /** At most `count` words for one letter, the least sent first; `counts`: it will be read. */
  take(count: number, counts: boolean): Word[] {
    const first = [...this.#left.values()].sort((a, b) => b.left - a.left).slice(0, count)
    for (const rumour of counts ? first : []) {
      rumour.left -= 1
      if (rumour.left === 0) this.#left.delete(rumour.word.node)
    }
    return first.map(({ word }) => word)
  }
}
