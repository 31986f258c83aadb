/**
 * Keeps copies of the mail of others. What a peer streams is inert until its COMMIT is durable,
 * and that is what is acknowledged (design: mail.md, Accept); without a COMMIT it goes with the link.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, StoreError, storeOnly } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { CopyDraft, CopyStore } from '../store/copies.ts'
import { isAbove, type Title } from '../store/marks.ts'
import type { Commit, HolderState, Message } from '../store/queued.ts'
import type { CopyLine, CopyLines } from './copy-lines.ts'
import {
  COMMIT_BYTES_MAX,
  type CopyRefusal,
  type Entry,
  type Mark,
  type Named,
  readCommit,
} from './copy-wire.ts'

/** Bodies that one peer may have under way. */
const DRAFTS_MAX = 2_000
/** Of one body: no message is larger. */
const DRAFT_BYTES_MAX = 1024 * 1024 * 1024
/** Of COMMITs in parts, one peer. */
const PARTS_BYTES_MAX = 2 * COMMIT_BYTES_MAX
/** A body of which nothing came for so long is dropped: a client may pause for 5 min in DATA. */
const IDLE_MS = 15 * 60_000
const IDLE_LOOK_MS = 60_000
/** Credit is given for so many bytes at once, when they are in the files. */
const CREDIT_BYTES = 512 * 1024
/** Names in one entry. */
const NAMES_MAX = 5_000

export type KeeperDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly store: CopyStore
  readonly lines: CopyLines
  /** Why this node takes no copies now, whatever its disk; null: it does. */
  readonly mayTake: () => string | null
  /** A peer has it now, with `term`. Never rejects. */
  readonly onStale: (id: MessageId, term: number, owner: NodeId) => Promise<void>
}

type Refusal = { readonly why: CopyRefusal; readonly detail: string }

const GAP: Refusal = { why: 'gap', detail: 'not all of it is there' }

/** A body that is arriving. */
type Arriving = {
  readonly draft: CopyDraft
  pieces: number
  bytes: number
  heardMono: number
}

type Desk = {
  readonly line: CopyLine
  readonly arriving: Map<MessageId, Arriving>
  readonly parts: Map<MessageId, Uint8Array[]>
  partsBytes: number
  /** Bytes for which no credit was given. */
  uncredited: number
  kept: Named[]
  acknowledges: boolean
  /** The highest number that is to be acknowledged. */
  told: number
  isSyncing: boolean
}

export class CopyKeeper {
  readonly #deps: KeeperDeps
  readonly #desks = new Map<NodeId, Desk>()
  #timer: Timer | null = null

  constructor(deps: KeeperDeps) {
    this.#deps = deps
    deps.lines.listen({
      opened: (line) => this.#opened(line),
      said: (line, entry) => {
        const desk = this.#desks.get(line.peer)
        if (desk?.line === line) this.#hear(desk, entry)
      },
      closed: (line) => this.#closed(line),
    })
    this.#timer = deps.clock.after(IDLE_LOOK_MS, () => this.#dropIdle())
  }

  close(): void {
    this.#timer?.cancel()
    for (const { line } of [...this.#desks.values()]) this.#closed(line)
  }

  /** Why a copy of this size would be refused now; null: it would be taken. */
  refusal(sizeBytes = 0): Refusal | null {
    const detail = this.#deps.mayTake()
    if (detail !== null) return { why: 'busy', detail }
    if (this.#deps.store.hasRoomForCopy(sizeBytes)) return null
    return { why: 'room', detail: 'its disk is too full for copies' }
  }

  // ---- links ----

  #opened(line: CopyLine): void {
    this.#desks.set(line.peer, {
      line,
      arriving: new Map(),
      parts: new Map(),
      partsBytes: 0,
      uncredited: 0,
      kept: [],
      acknowledges: false,
      told: 0,
      isSyncing: false,
    })
    this.#sayHave(line)
  }

  #closed(line: CopyLine): void {
    const desk = this.#desks.get(line.peer)
    if (desk?.line !== line) return
    this.#desks.delete(line.peer)
    for (const id of [...desk.arriving.keys()]) this.#drop(desk, id)
  }

  /** What this node has of the mail of that one: an acknowledgement, or its list, may be lost. */
  #sayHave(line: CopyLine): void {
    let names: Named[] = []
    for (const { id, owner, term } of this.#deps.store.copies()) {
      if (owner !== line.peer) continue
      names.push({ id, term })
      if (names.length < NAMES_MAX) continue
      line.put({ kind: 'have', names })
      names = []
    }
    if (names.length > 0) line.put({ kind: 'have', names })
  }

  #hear(desk: Desk, entry: Entry): void {
    switch (entry.kind) {
      case 'piece':
        return this.#piece(desk, entry.id, entry.index, entry.bytes)
      case 'part':
        return this.#part(desk, entry.id, entry.json)
      case 'commit':
        return this.#commit(desk, entry.id, entry.pieces, entry.json, entry.last)
      case 'abort':
        return this.#drop(desk, entry.id)
      case 'marks':
        for (const mark of entry.marks) this.#mark(desk, mark)
        return this.#acknowledge(desk, entry.number)
      case 'discard':
        for (const named of entry.names) this.#discard(desk, named)
        return this.#acknowledge(desk, entry.number)
      case 'holders':
        for (const { id, term, holders } of entry.holdings) {
          if (!this.#mayTell(desk, { id, term })) continue
          const copy = this.#deps.store.copy(id)
          if (copy !== null) this.#setHolders(copy, new Map(holders))
        }
        return this.#acknowledge(desk, entry.number)
      default:
    }
  }

  // ---- bodies ----

  #piece(desk: Desk, id: MessageId, index: number, bytes: Uint8Array): void {
    const { store, clock } = this.#deps
    this.#credit(desk, bytes.length)
    let arriving = desk.arriving.get(id)
    if (index === 0) {
      if (arriving !== undefined) this.#drop(desk, id)
      const refusal =
        desk.arriving.size >= DRAFTS_MAX
          ? { why: 'busy' as const, detail: `${DRAFTS_MAX} bodies are under way` }
          : this.refusal(bytes.length)
      if (refusal !== null) return this.#refuse(desk, { id, term: 1 }, refusal.why, refusal.detail)
      arriving = { draft: store.draftCopy(id), pieces: 0, bytes: 0, heardMono: 0 }
      desk.arriving.set(id, arriving)
    }
    // The rest of what was refused or dropped; its COMMIT will hear so.
    if (arriving === undefined || arriving.pieces !== index) return this.#drop(desk, id)
    arriving.pieces += 1
    arriving.bytes += bytes.length
    arriving.heardMono = clock.monoMs()
    if (arriving.bytes > DRAFT_BYTES_MAX || !store.hasRoomForCopy(bytes.length)) {
      this.#drop(desk, id)
      return this.#refuse(desk, { id, term: 1 }, 'room', 'its disk is too full for copies')
    }
    try {
      arriving.draft.add(bytes)
    } catch (error) {
      this.#drop(desk, id)
      this.#failed(desk, { id, term: 1 }, error)
    }
  }

  #part(desk: Desk, id: MessageId, json: Uint8Array): void {
    const parts = desk.parts.get(id) ?? []
    const bytes = parts.reduce((sum, part) => sum + part.length, json.length)
    if (bytes > COMMIT_BYTES_MAX || desk.partsBytes + json.length > PARTS_BYTES_MAX) {
      return this.#deps.lines.refuse(desk.line, 'order')
    }
    // What came with it in one message need not be kept as well.
    desk.parts.set(id, [...parts, json.slice()])
    desk.partsBytes += json.length
  }

  #commit(desk: Desk, id: MessageId, pieces: number, json: Uint8Array, last: Uint8Array): void {
    const parts = desk.parts.get(id)
    if (parts !== undefined) this.#dropParts(desk, id)
    const whole = parts === undefined ? json : new Uint8Array(Buffer.concat([...parts, json]))
    const commit = readCommit(id, whole)
    // Nobody gives what he does not own.
    if (commit === null || commit.owner !== desk.line.peer) {
      return this.#deps.lines.refuse(desk.line, 'commit')
    }
    const named = { id, term: commit.term }
    const arriving = desk.arriving.get(id)
    desk.arriving.delete(id)
    const has = (arriving?.bytes ?? 0) + last.length
    const isWhole = (arriving?.pieces ?? 0) === pieces && has === commit.sizeBytes
    const refusal = isWhole ? this.refusal(has) : GAP
    if (refusal !== null) {
      arriving?.draft.abort()
      return this.#refuse(desk, named, refusal.why, refusal.detail)
    }
    const draft = arriving?.draft ?? this.#deps.store.draftCopy(id)
    try {
      if (last.length > 0) draft.add(last)
    } catch (error) {
      draft.abort()
      return this.#failed(desk, named, error)
    }
    void this.#keep(desk, draft, commit)
  }

  /** Who has the message now, when that is somebody else with a better right to it. */
  #newer(id: MessageId, term: number, owner: NodeId): Title | null {
    const { store } = this.#deps
    const known = store.get(id) ?? store.copy(id) ?? store.fate(id)
    if (known === null || known.owner === owner || !isAbove(known, { term, owner })) return null
    return { term: known.term, owner: known.owner }
  }

  /** Never rejects. */
  async #keep(desk: Desk, draft: CopyDraft, commit: Commit): Promise<void> {
    const named = { id: commit.envelope.id, term: commit.term }
    try {
      await this.#deps.store.keep(draft, commit)
    } catch (error) {
      return this.#failed(desk, named, error)
    }
    desk.kept.push(named)
    if (desk.acknowledges) return
    desk.acknowledges = true
    // One sync ends many: they are told together.
    queueMicrotask(() => {
      desk.acknowledges = false
      const names = desk.kept
      desk.kept = []
      desk.line.put({ kind: 'kept', names })
    })
  }

  #refuse(
    desk: Desk,
    { id, term }: Named,
    why: CopyRefusal,
    detail: string,
    owner: NodeId | null = null,
  ): void {
    this.#deps.observer.emit('copy.refused', { message: id, from: desk.line.peer, why, detail })
    desk.line.put({ kind: 'refused', refused: { id, term, why, detail, owner } })
  }

  #failed(desk: Desk, named: Named, error: unknown): void {
    if (!(error instanceof StoreError)) throw error
    // It may have been taken over while it was being written.
    const newer = this.#newer(named.id, named.term, desk.line.peer)
    if (newer === null) return this.#refuse(desk, named, 'store', messageOf(error).slice(0, 512))
    this.#sayStale(desk, named.id, newer)
  }

  /** Once it is durable: the peer gives the message up on this word. */
  #sayStale(desk: Desk, id: MessageId, { term, owner }: Title): void {
    this.#deps.store.synced().then(
      () => this.#refuse(desk, { id, term }, 'stale', 'another node owns it now', owner),
      // The spool failed, which ends the process.
      () => {},
    )
  }

  #drop(desk: Desk, id: MessageId): void {
    desk.arriving.get(id)?.draft.abort()
    desk.arriving.delete(id)
    this.#dropParts(desk, id)
  }

  #dropParts(desk: Desk, id: MessageId): void {
    for (const part of desk.parts.get(id) ?? []) desk.partsBytes -= part.length
    desk.parts.delete(id)
  }

  #dropIdle(): void {
    const { clock } = this.#deps
    for (const desk of this.#desks.values()) {
      for (const [id, { heardMono }] of [...desk.arriving]) {
        if (clock.monoMs() - heardMono > IDLE_MS) this.#drop(desk, id)
      }
    }
    this.#timer = clock.after(IDLE_LOOK_MS, () => this.#dropIdle())
  }

  /**
   * Bytes count as taken when they are in the files: a slow disk slows the sender, not fills memory.
   * They need no sync before their COMMIT, which makes them durable with it.
   */
  #credit(desk: Desk, bytes: number): void {
    desk.uncredited += bytes
    if (desk.uncredited < CREDIT_BYTES) return
    const given = desk.uncredited
    desk.uncredited = 0
    this.#deps.store.written().then(
      () => desk.line.put({ kind: 'credit', bytes: given }),
      // The spool failed, which ends the process.
      () => {},
    )
  }

  // ---- what the owner says later ----

  /** False: somebody else owns it now, and the peer is told. */
  #mayTell(desk: Desk, { id, term }: Named): boolean {
    const { store } = this.#deps
    const owner = desk.line.peer
    const newer = this.#newer(id, term, owner)
    if (newer !== null) {
      this.#sayStale(desk, id, newer)
      return false
    }
    // It was adopted or handed over, and we have not heard of it yet.
    store.setOwner(id, owner, term)
    return true
  }

  #mark(desk: Desk, mark: Mark): void {
    const { store } = this.#deps
    const { id, term, kind, payload } = mark
    const own = store.get(id)
    const known = own ?? store.copy(id)
    if (known !== null && payload.r.some((index) => index >= known.recipients.length)) {
      return this.#deps.lines.refuse(desk.line, 'order')
    }
    // Who owned it before still had an attempt under way: what is done is done.
    if (own !== null) store.markCopy(id, kind, payload)
    if (own?.term === term) return
    if (this.#mayTell(desk, mark) && own === null) store.markCopy(id, kind, payload)
  }

  #discard(desk: Desk, named: Named): void {
    if (!this.#mayTell(desk, named)) return
    const { store, onStale } = this.#deps
    const { id, term } = named
    if (store.get(id) === null) return store.forgetCopy(id)
    // The peer took it over and is done with it before this node has heard of either.
    onStale(id, term, desk.line.peer)
      .then(() => store.forgetCopy(id))
      // The spool failed, which ends the process.
      .catch(storeOnly)
  }

  #setHolders(copy: Message, said: ReadonlyMap<NodeId, HolderState>): void {
    const { store } = this.#deps
    for (const node of [...copy.holders.keys()]) {
      if (!said.has(node)) store.setHolder(copy, node, null)
    }
    for (const [node, state] of said) {
      if (copy.holders.get(node) !== state) store.setHolder(copy, node, state)
    }
  }

  /** Once it is durable, and once for all that came meanwhile. */
  #acknowledge(desk: Desk, number: number): void {
    desk.told = number
    if (desk.isSyncing) return
    desk.isSyncing = true
    this.#deps.store.synced().then(
      () => {
        desk.isSyncing = false
        desk.line.put({ kind: 'told', number })
        if (desk.told !== number) this.#acknowledge(desk, desk.told)
      },
      // The spool failed, which ends the process.
      () => {},
    )
  }
}
