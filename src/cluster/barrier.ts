/**
 * The rejoin barrier (design: mail.md): mail of before this start waits until the others have said
 * what became of it meanwhile, or cannot be reached. New mail flows at once. Copies that are kept
 * for others are inert behind it too. A node that never had another member has none.
 */
import type { Clock } from '../base/clock.ts'
import { storeOnly } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { isFinal, type Message } from '../store/queued.ts'
import type { Roster } from './contract.ts'
import type { Hearing } from './hearing.ts'
import type { Patience } from './patience.ts'
import { STANDINGS_MAX, type Standing, titleOf } from './standing.ts'
import type { MailStore } from './yield.ts'

const OVER = 'It was final before the disk of this node went back in time.'

export type BarrierOptions = {
  readonly roster: Pick<Roster, 'self' | 'get' | 'peers'>
  readonly store: MailStore
  readonly hearing: Pick<Hearing, 'ask'>
  readonly patience: Pick<Patience, 'barrierMs'>
  readonly clock: Clock
  readonly observer: Observer
  readonly inDoubtMs: () => number
  /** They may go on. */
  readonly freed: (ids: readonly MessageId[]) => void
  /** Called once, unless it was passed from the beginning. */
  readonly passed: () => void
}

/** One peer, as far as it is still to answer. */
type Witness = {
  /** Messages about which it is still to be asked, in the order of the queue. */
  open: Set<MessageId>
  /** It has said something, if only facts. */
  hasSpoken: boolean
  /** It has answered at least once, and knew itself. */
  hasAnswered: boolean
  /** So long it did not answer, while this node was awake. */
  awayMs: number
  isBusy: boolean
}

export class Barrier {
  readonly #options: BarrierOptions
  /** Old messages that wait, and who is still to answer. */
  readonly #waiting = new Map<MessageId, Set<NodeId>>()
  readonly #witnesses = new Map<NodeId, Witness>()
  /** All that were there at the start. */
  readonly #old: readonly MessageId[]
  /** Messages of which somebody knew something. */
  readonly #known = new Set<MessageId>()
  /** Messages that a holder had durably once, and has no more. */
  readonly #forgotten = new Set<MessageId>()
  /** Messages that a holder was told to forget, by this node itself. */
  readonly #over = new Set<MessageId>()
  #isRolledBack = false
  #isPassed: boolean

  constructor(options: BarrierOptions) {
    this.#options = options
    const { store } = options
    const peers = options.roster.peers()
    this.#old = [...store.messages()].map(({ id }) => id)
    this.#isPassed = peers.length === 0 || (this.#old.length === 0 && store.copyCount === 0)
    if (this.#isPassed) return
    for (const { node } of peers) this.#witnesses.set(node, newWitness())
    for (const id of this.#old) {
      const { adoption = null, holders } = store.get(id) ?? {}
      // What was adopted got new copies since: a disk that went back does not know of them.
      const named = adoption === null ? (holders ?? this.#witnesses) : this.#witnesses
      this.#wait(
        id,
        [...named.keys()].filter((node) => this.#isHere(node)),
      )
    }
  }

  /** All that is known elsewhere of the time before this start is known here. */
  get isPassed(): boolean {
    return this.#isPassed
  }

  /**
   * Every member has spoken, and none knows of a later start of this node: what its disk says of
   * its own acts is whole. So nodes that all start at once need not wait for each other.
   */
  get isSure(): boolean {
    if (this.#isPassed) return true
    return !this.#isRolledBack && [...this.#witnesses.values()].every(({ hasSpoken }) => hasSpoken)
  }

  /** The disk of this node went back in time: nothing old moves without its marks. */
  get isRolledBack(): boolean {
    return this.#isRolledBack
  }

  blocks(id: MessageId): boolean {
    return !this.#isPassed && this.#waiting.has(id)
  }

  /** Time passed, or somebody came into reach. */
  look(awakeMs: number): void {
    if (this.#isPassed) return
    for (const [node, witness] of [...this.#witnesses]) {
      if (!this.#isHere(node)) this.#dismiss(node)
      else if (!witness.isBusy && (witness.open.size > 0 || !witness.hasAnswered)) {
        witness.awayMs += awakeMs
        // Keeps what it hears. A spool that failed ends the process.
        this.#hear(node, witness).catch(storeOnly)
      }
    }
    this.#free()
  }

  async #hear(node: NodeId, witness: Witness): Promise<void> {
    witness.isBusy = true
    const { store, hearing, roster } = this.#options
    do {
      const ids = [...witness.open].slice(0, STANDINGS_MAX)
      const titles = ids.flatMap((id) => {
        const message = store.get(id)
        return message === null ? [] : [{ id, ...titleOf(message) }]
      })
      const said = await hearing.ask(node, titles)
      if (said === null) break
      witness.hasSpoken = true
      for (const standing of said.standings) {
        ;(this.#isOver(standing) ? this.#over : this.#known).add(standing.id)
      }
      const isLater = said.epoch > roster.self.epoch || this.#over.size > 0
      if (isLater && !this.#isRolledBack) this.#rollBack()
      if (said.isBehind) break
      witness.awayMs = 0
      for (const id of ids) this.#answered(id, node, witness, said.standings)
      witness.hasAnswered = true
    } while (witness.open.size > 0)
    witness.isBusy = false
    this.#free()
  }

  #answered(
    id: MessageId,
    node: NodeId,
    witness: Witness,
    standings: readonly { readonly id: MessageId }[],
  ): void {
    witness.open.delete(id)
    this.#waiting.get(id)?.delete(node)
    const own = this.#options.store.get(id)
    if (own === null || own.holders.get(node) === 'discarding') return
    // What it was thought to have and has not is to be copied anew.
    const has = standings.some((standing) => standing.id === id)
    if (has || !own.holders.has(node)) return
    if (own.holders.get(node) === 'kept') this.#forgotten.add(id)
    this.#options.store.setHolder(own, node, null)
  }

  /**
   * It ended there under the title that it has here: on the word of this node, which says so only
   * when all is final and durable. The disk has forgotten that, even if no start came between. (What
   * is made again under its id, a release or a notification, may have ended there once before.)
   */
  #isOver({ id, kind, owner, term }: Standing): boolean {
    const { store } = this.#options
    const own = store.get(id)
    if (kind !== 'fate' || own === null || own.commit.dsn || own.commit.heldMoved) return false
    return owner === store.node && term === own.term
  }

  /** Who had a copy may stand in what was lost: everybody is asked about everything. */
  #rollBack(): void {
    this.#isRolledBack = true
    const { store, observer } = this.#options
    const old = this.#old.filter((id) => store.get(id) !== null)
    observer.emit('queue.barred', { why: 'rolledBack', messages: old.length })
    observer.emit('node.rolledBack', { messages: old.length })
    for (const id of old) this.#wait(id, [...this.#witnesses.keys()])
  }

  #wait(id: MessageId, nodes: readonly NodeId[]): void {
    this.#waiting.set(id, new Set(nodes))
    for (const node of nodes) this.#witnesses.get(node)?.open.add(id)
  }

  /** It was removed: nobody waits for it. */
  #dismiss(node: NodeId): void {
    this.#witnesses.delete(node)
    for (const nodes of this.#waiting.values()) nodes.delete(node)
  }

  #free(): void {
    if (this.#isPassed) return
    const { barrierMs } = this.#options.patience
    const witnesses = [...this.#witnesses.values()]
    const away = new Set(
      [...this.#witnesses].flatMap(([node, { awayMs }]) => (awayMs >= barrierMs ? [node] : [])),
    )
    const isAlone = away.size === witnesses.length
    if (!isAlone && !witnesses.some(({ hasAnswered }) => hasAnswered)) return
    const freed: MessageId[] = []
    let unanswered = 0
    for (const [id, nodes] of [...this.#waiting]) {
      if (![...nodes].every((node) => away.has(node))) continue
      if (nodes.size > 0) unanswered += 1
      this.#waiting.delete(id)
      if (this.#isRolledBack) this.#afterRollBack(id)
      freed.push(id)
    }
    if (unanswered > 0) {
      this.#options.observer.emit('queue.barred', { why: 'alone', messages: unanswered })
    }
    this.#isPassed = this.#waiting.size === 0
    if (freed.length > 0) this.#options.freed(freed)
    if (this.#isPassed) this.#options.passed()
  }

  #afterRollBack(id: MessageId): void {
    const { store, clock } = this.#options
    const message = store.get(id)
    if (message === null) return
    if (this.#over.has(id) || !this.#known.has(id)) return this.#conclude(message)
    // The last marks before the end may have reached nobody: each delivery is counted as one more.
    for (const [index, recipient] of message.recipients.entries()) {
      const { state, attempts, nextTryMs } = recipient
      if (isFinal(state) || state === 'held' || recipient.doubtful) continue
      recipient.doubtful = true
      const at = state === 'queued' ? clock.wallMs() : nextTryMs
      store.mark('defer', message, [index], { at, attempts, doubt: true })
    }
  }

  /**
   * Nobody has its marks. A holder forgets what it has when all is final, on the word of its owner:
   * of this node, in the time that its disk has lost. What never had a holder is in doubt.
   */
  #conclude(message: Message): void {
    const { store, clock, inDoubtMs } = this.#options
    const { id } = message
    for (const [index, recipient] of message.recipients.entries()) {
      if (isFinal(recipient.state) || recipient.state === 'held') continue
      if (this.#over.has(id) || this.#forgotten.has(id)) {
        store.mark('fail', message, [index], { reply: OVER })
        Object.assign(recipient, { state: 'dropped', lastReply: OVER })
      } else {
        store.mark('try', message, [index])
        const nextTryMs = clock.wallMs() + inDoubtMs()
        Object.assign(recipient, { state: 'inDoubt', doubtful: true, nextTryMs })
      }
    }
    store.settle(message)
  }

  #isHere(node: NodeId): boolean {
    return this.#options.roster.get(node)?.standing === 'member'
  }
}

function newWitness(): Witness {
  return { open: new Set(), hasSpoken: false, hasAnswered: false, awayMs: 0, isBusy: false }
}
