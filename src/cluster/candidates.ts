/** Who takes copies of mail now (design: mail.md, Accept). */
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Links, Members, NodeReport, Roster } from './contract.ts'
import { rankOf } from './rank.ts'

export type CandidatesDeps = {
  readonly roster: Pick<Roster, 'peers' | 'onChange'>
  readonly links: Pick<Links, 'get' | 'onOpen' | 'onClose'>
  readonly members: Pick<Members, 'get' | 'isUsable' | 'onChange'>
  /** What peers said of themselves last; `Sync` is one. */
  readonly sync: {
    peer(node: NodeId): { readonly report: NodeReport | null } | null
    onChange(listener: () => void): void
  }
}

export class Candidates {
  readonly #deps: CandidatesDeps
  readonly #listeners: (() => void)[] = []
  /** Null: to be looked up anew. */
  #nodes: readonly NodeId[] | null = null

  constructor(deps: CandidatesDeps) {
    this.#deps = deps
    const changed = (): void => this.#changed()
    deps.roster.onChange(changed)
    deps.links.onOpen(changed)
    deps.links.onClose(changed)
    deps.members.onChange(changed)
    deps.sync.onChange(changed)
  }

  /** In the order of the roster. */
  all(): readonly NodeId[] {
    this.#nodes ??= this.#deps.roster
      .peers()
      .filter(({ node, drain }) => drain === 'accepting' && this.#takes(node))
      .map(({ node }) => node)
    return this.#nodes
  }

  has(node: NodeId): boolean {
    return this.all().includes(node)
  }

  /** The one of highest rank that is none of `not`. */
  first(id: MessageId, not: (node: NodeId) => boolean): NodeId | null {
    let best: NodeId | null = null
    let highest = -1
    for (const node of this.all()) {
      if (not(node)) continue
      const rank = rankOf(id, node)
      if (rank < highest || (rank === highest && best !== null && node < best)) continue
      best = node
      highest = rank
    }
    return best
  }

  /** Some may have come or gone. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  #takes(node: NodeId): boolean {
    const { links, members, sync } = this.#deps
    return (
      links.get(node) !== null &&
      members.isUsable(node) &&
      members.get(node)?.life === 'alive' &&
      sync.peer(node)?.report?.takesCopies === true
    )
  }

  #changed(): void {
    this.#nodes = null
    for (const listener of this.#listeners) listener()
  }
}
