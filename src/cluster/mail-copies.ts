/** Copies of mail, both ways: what of this node others keep, what it keeps for them. */
import type { Clock } from '../base/clock.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { CopyStore } from '../store/copies.ts'
import type { Message } from '../store/queued.ts'
import { Candidates, type CandidatesDeps } from './candidates.ts'
import type { Links, Members, Roster } from './contract.ts'
import { CopyLines } from './copy-lines.ts'
import { Healing, Holdings } from './heal.ts'
import { CopyKeeper } from './keeper.ts'
import { LinkMirror } from './mirror.ts'
import type { Patience } from './patience.ts'
import { Tellings } from './tellings.ts'

export type MailCopiesDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly patience: Pick<Patience, 'healMs'>
  readonly store: CopyStore
  readonly links: Links
  readonly roster: Roster
  readonly members: Members
  readonly sync: CandidatesDeps['sync']
  /** Why this node takes no copies now, whatever its disk; null: it does. */
  readonly mayTake: () => string | null
  /** A peer says that `owner` has the message now, with `term`. Never rejects. */
  readonly onStale: (id: MessageId, term: number, owner: NodeId) => Promise<void>
}

export class MailCopies {
  /** What the queue is given. */
  readonly mirror: LinkMirror
  readonly candidates: Candidates
  readonly #keeper: CopyKeeper
  readonly #tellings: Tellings
  readonly #healing: Healing

  constructor(deps: MailCopiesDeps) {
    const { store, links, roster, members, clock } = deps
    const lines = new CopyLines(links, deps)
    const candidates = new Candidates(deps)
    const isGone = (node: NodeId): boolean => {
      const standing = roster.get(node)?.standing
      return standing === 'left' || standing === 'evicted'
    }
    const tellings = new Tellings(store, lines, { ...deps, isGone })
    const holdings = new Holdings(clock)
    const hasPeers = (): boolean => roster.peers().length > 0
    const mirror = new LinkMirror({ ...deps, lines, candidates, tellings, holdings, hasPeers })
    this.mirror = mirror
    this.candidates = candidates
    this.#tellings = tellings
    this.#keeper = new CopyKeeper({ ...deps, lines })
    this.#healing = new Healing({
      ...deps,
      members,
      holdings,
      candidates,
      isGone,
      give: (message, node) => mirror.give(message, node),
      forget: (message, node) => tellings.forget(message, node),
      isBusy: (node) => mirror.isBusy(node),
    })
  }

  close(): void {
    this.#healing.close()
    this.#tellings.close()
    this.#keeper.close()
    this.mirror.close()
  }

  /** Copies that became own messages: they need a copy elsewhere, as all do. */
  owned(messages: readonly Message[]): void {
    this.#healing.look(messages)
  }

  /** For the beats: it would take a copy now. */
  get takesCopies(): boolean {
    return this.#keeper.refusal() === null
  }

  /** For the beats: own messages of which nobody else is known to have a copy. */
  get alone(): number {
    return this.#healing.underReplicated()
  }

  /** A copy of an own message to `node`; true when it is durable there. Never rejects. */
  give(message: Message, node: NodeId): Promise<boolean> {
    return this.mirror.give(message, node)
  }

  /** As `give`, to whoever takes it. */
  giveAny(message: Message): Promise<NodeId | null> {
    return this.mirror.giveAny(message)
  }
}
