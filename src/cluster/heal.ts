/**
 * Sees to it that somebody else has each own message: who is known to have what, and a new copy
 * for what nobody else has, or what those have who do not come back (design: mail.md, Accept).
 */
import type { Clock, Timer } from '../base/clock.ts'
import { storeOnly } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { CopyStore } from '../store/copies.ts'
import type { Message } from '../store/queued.ts'
import type { Candidates } from './candidates.ts'
import type { Members, Roster } from './contract.ts'
import type { Patience } from './patience.ts'

/** Looks for what is to be healed so often. */
const LOOK_MS = 1_000
/** Copies made at a time, and bytes of them: fresh mail goes first. */
const HEALS_MAX = 16
const HEAL_BYTES_MAX = 4 * 1024 * 1024
/** A link that opened a moment ago: the peer still says what it has. */
const SETTLE_MS = 1_000
/** One that could not be copied is tried again after this. */
const AGAIN_MS = 5_000
/** An accepted mail is in the queue before that. */
const FRESH_MS_MAX = 60_000
/** Messages looked at in one turn. */
const SLICE = 5_000

/** Who is known to have which own message. Ids only: a queue may be long. */
export class Holdings {
  readonly #clock: Clock
  readonly #kept = new Map<NodeId, Set<MessageId>>()
  /** Nobody whom we count on has it; since when, or when to try again. */
  readonly #alone = new Map<MessageId, number>()
  /** Those who do not count. */
  readonly #lost = new Set<NodeId>()
  /** Something is alone that was not. */
  onAlone: () => void = () => {}

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Own messages of which nobody else is known to have a copy. */
  get aloneCount(): number {
    return this.#alone.size
  }

  kept(id: MessageId, node: NodeId): void {
    let ids = this.#kept.get(node)
    if (ids === undefined) {
      ids = new Set()
      this.#kept.set(node, ids)
    }
    ids.add(id)
    if (!this.#lost.has(node)) this.#alone.delete(id)
  }

  alone(id: MessageId): void {
    if (this.#alone.has(id)) return
    this.#alone.set(id, this.#clock.monoMs())
    this.onAlone()
  }

  /** As its holders stand now. */
  look(message: Message): void {
    let counts = false
    for (const [node, state] of message.holders) {
      if (state !== 'kept') continue
      this.kept(message.id, node)
      counts ||= !this.#lost.has(node)
    }
    if (!counts) this.alone(message.id)
  }

  gone(message: Message): void {
    for (const node of message.holders.keys()) this.#kept.get(node)?.delete(message.id)
    this.#alone.delete(message.id)
  }

  /** It never came into the queue. */
  forget(id: MessageId): void {
    for (const ids of this.#kept.values()) ids.delete(id)
    this.#alone.delete(id)
  }

  /** Whether what `node` has counts. Gives the messages for which that changes something. */
  count(node: NodeId, counts: boolean): Iterable<MessageId> {
    if (this.#lost.has(node) !== counts) return []
    if (counts) this.#lost.delete(node)
    else this.#lost.add(node)
    return this.#kept.get(node) ?? []
  }

  nodes(): readonly NodeId[] {
    return [...this.#kept.keys()]
  }

  /** A few ids after the other, round and round, for whoever looks whether they still are. */
  *all(): Generator<MessageId> {
    for (const ids of this.#kept.values()) yield* ids
    yield* this.#alone.keys()
  }

  remove(node: NodeId): void {
    this.#kept.delete(node)
    this.#lost.delete(node)
  }

  /** Those alone since before `mono`, the ones that wait the longest first. */
  *waiting(mono: number): Generator<readonly [MessageId, number]> {
    for (const entry of this.#alone) if (entry[1] <= mono) yield entry
  }

  /** Behind all others, and not before `mono`. */
  defer(id: MessageId, mono: number): void {
    if (this.#alone.delete(id)) this.#alone.set(id, mono)
  }
}

export type HealDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly patience: Pick<Patience, 'healMs'>
  readonly store: CopyStore
  readonly holdings: Holdings
  readonly candidates: Candidates
  readonly roster: Pick<Roster, 'get' | 'peers' | 'onChange'>
  /** It left or was removed. */
  readonly isGone: (node: NodeId) => boolean
  readonly members: Pick<Members, 'get'>
  readonly give: (message: Message, node: NodeId) => Promise<boolean>
  /** A node that was removed holds nothing and is owed nothing. */
  readonly forget: (message: Message, node: NodeId) => void
  /** Bytes of bodies on their way to a node that it has not taken. */
  readonly isBusy: (node: NodeId) => boolean
}

export class Healing {
  readonly #deps: HealDeps
  readonly #healing = new Map<MessageId, number>()
  #bytes = 0
  #timer: Timer
  #scan: { readonly messages: Iterator<Message>; timer: Timer } | null = null
  /** Candidates, and since when they are. */
  readonly #since = new Map<NodeId, number>()
  #peers: ReadonlySet<NodeId>
  #sweeping: Generator<MessageId>
  #unknown = new Set<MessageId>()
  #seen = new Set<MessageId>()
  #isClosed = false

  constructor(deps: HealDeps) {
    this.#deps = deps
    const { candidates, roster, clock } = deps
    this.#sweeping = deps.holdings.all()
    this.#peers = new Set(roster.peers().map(({ node }) => node))
    candidates.onChange(() => this.#noteCandidates())
    roster.onChange(() => this.#noteStandings())
    this.#noteCandidates()
    this.#timer = clock.after(LOOK_MS, () => this.#look())
    this.#rescan()
  }

  close(): void {
    this.#isClosed = true
    this.#timer.cancel()
    this.#scan?.timer.cancel()
  }

  /** They became own messages, or others are known to hold them. */
  look(messages: readonly Message[]): void {
    for (const message of messages) {
      // Whose it was may have been removed, and that is why it is ours.
      this.#forgetGone(message)
      if (!message.isFinal) this.#deps.holdings.look(message)
    }
  }

  /** Own messages, queued or partly held, that would be lost with this node. */
  underReplicated(): number {
    return this.#deps.holdings.aloneCount
  }

  // ---- who counts ----

  #noteCandidates(): void {
    const { candidates, clock } = this.#deps
    const now = candidates.all()
    const hadNone = this.#since.size === 0
    for (const node of [...this.#since.keys()]) if (!now.includes(node)) this.#since.delete(node)
    for (const node of now) if (!this.#since.has(node)) this.#since.set(node, clock.monoMs())
    // What came while there was nobody to have it was not noted.
    if (hadNone && now.length > 0) this.#rescan()
  }

  /** Who left or was removed holds nothing, for ever. */
  #noteStandings(): void {
    const { roster, store, holdings } = this.#deps
    const now = new Set(roster.peers().map(({ node }) => node))
    const gone = [...this.#peers].filter((node) => !now.has(node))
    this.#peers = now
    if (gone.length === 0) return
    for (const messages of [[...store.owed()], store.messages()]) {
      for (const message of messages) this.#forgetGone(message)
    }
    for (const node of gone) {
      for (const id of [...holdings.count(node, false)]) this.#review(id)
      holdings.remove(node)
    }
  }

  #forgetGone(message: Message): void {
    const { isGone, forget } = this.#deps
    for (const node of [...message.holders.keys()]) if (isGone(node)) forget(message, node)
  }

  /** What a holder has does not count from 15 s after its death on, nor when it leaves for good. */
  #noteLives(): void {
    const { members, holdings, clock, patience, roster } = this.#deps
    for (const node of holdings.nodes()) {
      const liveness = members.get(node)
      if (liveness === null) continue
      const { life, sinceMono } = liveness
      const isDead = life === 'dead' && clock.monoMs() - sinceMono >= patience.healMs
      const isLost = isDead || roster.get(node)?.drain === 'leaving'
      for (const id of holdings.count(node, !isLost)) this.#review(id)
    }
  }

  #review(id: MessageId): void {
    const { store, holdings } = this.#deps
    const message = store.get(id)
    if (message === null) holdings.forget(id)
    else holdings.look(message)
  }

  // ---- all of the queue ----

  #rescan(): void {
    this.#scan?.timer.cancel()
    const messages = this.#deps.store.messages()[Symbol.iterator]()
    const scan = { messages, timer: this.#deps.clock.after(0, () => this.#step()) }
    this.#scan = scan
  }

  #step(): void {
    const scan = this.#scan
    if (scan === null || this.#isClosed) return
    for (let count = 0; count < SLICE; count += 1) {
      const next = scan.messages.next()
      if (next.done === true) {
        this.#scan = null
        return
      }
      this.#forgetGone(next.value)
      if (!next.value.isFinal) this.#deps.holdings.look(next.value)
    }
    scan.timer = this.#deps.clock.after(0, () => this.#step())
  }

  // ---- new copies ----

  #look(): void {
    if (this.#isClosed) return
    this.#timer = this.#deps.clock.after(LOOK_MS, () => this.#look())
    this.#noteLives()
    this.#sweep()
    this.#heal()
  }

  /** What was handed over is nobody's concern here, and nobody says so. */
  #sweep(): void {
    const { holdings, store } = this.#deps
    for (let count = 0; count < SLICE; count += 1) {
      const next = this.#sweeping.next()
      if (next.done === true) {
        this.#sweeping = holdings.all()
        this.#unknown = this.#seen
        this.#seen = new Set()
        return
      }
      const id = next.value
      if (store.get(id) !== null) continue
      // Twice: one that was accepted just now comes into the queue a moment later.
      if (this.#unknown.has(id)) holdings.forget(id)
      else this.#seen.add(id)
    }
  }

  #heal(): void {
    const { holdings, store, candidates, clock } = this.#deps
    if (candidates.all().length === 0 || holdings.aloneCount === 0) return
    const nowMono = clock.monoMs()
    const begun: MessageId[] = []
    for (const [id, sinceMono] of holdings.waiting(nowMono)) {
      if (this.#healing.size >= HEALS_MAX || this.#bytes >= HEAL_BYTES_MAX) break
      if (this.#healing.has(id)) continue
      const message = store.get(id)
      if (message === null || message.isFinal || message.owner !== store.node) {
        if (message !== null || nowMono - sinceMono > FRESH_MS_MAX) holdings.forget(id)
        continue
      }
      const node = candidates.first(id, (one) => !this.#isReady(one, message, nowMono))
      if (node === null) {
        begun.push(id)
        if (begun.length >= SLICE) break
        continue
      }
      // A spool that failed ends the process.
      this.#copy(message, node).catch(storeOnly)
    }
    for (const id of begun) holdings.defer(id, nowMono + LOOK_MS)
  }

  #isReady(node: NodeId, message: Message, nowMono: number): boolean {
    const sinceMono = this.#since.get(node) ?? nowMono
    if (nowMono - sinceMono < SETTLE_MS || message.holders.get(node) === 'kept') return false
    return !this.#deps.isBusy(node)
  }

  /** @throws StoreError */
  async #copy(message: Message, node: NodeId): Promise<void> {
    const { holdings, observer, give, clock } = this.#deps
    const { id } = message
    const { sizeBytes } = message.commit
    this.#healing.set(id, sizeBytes)
    this.#bytes += sizeBytes
    const isKept = await give(message, node)
    this.#healing.delete(id)
    this.#bytes -= sizeBytes
    if (isKept) observer.emit('copy.healed', { message: id, by: node })
    else holdings.defer(id, clock.monoMs() + AGAIN_MS)
    if (!this.#isClosed) this.#heal()
  }
}
