/**
 * Who decides about a held mail when its owner is gone (design: mail.md, Release once). The living
 * holder of highest rank takes it over: unasked when the owner is known to be dead, and to have
 * done nothing that is not known here; else only on the word of an operator, and counted. Silence
 * alone is never enough. A release that the owner had decided, and not told to be in its queue, goes
 * out again, counted too.
 */
import { type Clock, isoTime, type Timer } from '../../base/clock.ts'
import { messageOf, RefusalError, StoreError } from '../../base/errors.ts'
import { type MessageId, type NodeId, parseMessageId } from '../../base/ids.ts'
import type { Observer } from '../../base/observe.ts'
import type { HeldCopy, HeldEntry, Quarantine, TakeoverDoubt } from '../../store/quarantine.ts'
import type { HeldNodes } from './nodes.ts'
import type { HeldShare } from './share.ts'

/** To a holder: the mail is yours from now on. */
export const TAKE = 'held.take'

const STEP_MS = 5_000
const NEXT_STEP_MS = 200
/** Messages of one step. */
const STEP_ROWS = 200
const MOVED_AT_ONCE = 100

/** Why this node decides about a mail now. */
type How = 'confirmed' | 'removed' | 'left' | 'anyway' | 'moved'

const TOLD: Readonly<Record<How, string>> = {
  confirmed: 'taken over, confirmed dead:',
  removed: 'taken over, removed from the cluster:',
  left: 'taken over, has left the cluster:',
  anyway: 'taken over because an operator said so, from',
  moved: 'handed over by',
}

const RESOLVED = 'in doubt no more: its former owner is back, and has told what it had decided'

export type HeldTakeoverDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly quarantine: Quarantine
  readonly share: HeldShare
  readonly nodes: HeldNodes
  readonly patience: {
    /** A dead owner's mail is taken over unasked so long after the refusals began. */
    readonly adoptConfirmedMs: number
    /** No doubt when the refusals began so soon after the last contact. */
    readonly takeoverMs: number
  }
  /** A line of the history of a mail, about one of its recipients or all. */
  readonly note: (id: MessageId, recipient: string | null, detail: string) => void
  /** Mails that became this node's own have work left: clicks, releases that are not in a queue. */
  readonly taken: () => void
}

export class HeldTakeover {
  readonly #deps: HeldTakeoverDeps
  /** Mails on their way to another owner: nothing is decided about them here. */
  readonly #moving = new Set<MessageId>()
  /** Where the look through an owner's mail goes on. */
  readonly #lookedTo = new Map<NodeId, string>()
  /** Of mail with a body; null: rows have changed since. */
  #owners: readonly NodeId[] | null = null
  /** Who owned a mail before has spoken of it, and its rows may not all be here yet. */
  readonly #spoke = new Map<MessageId, NodeId>()
  #isMoving = false
  #timer: Timer | null = null
  #stopped = false

  constructor(deps: HeldTakeoverDeps) {
    this.#deps = deps
  }

  start(): void {
    const { quarantine } = this.#deps
    quarantine.onChanged((_, origin) => {
      this.#owners = null
      if (origin === 'peer') this.#yield()
    })
    this.#yield()
    this.#plan(STEP_MS)
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
  }

  /** A mail that is handed on is not decided about until that has ended. @throws RefusalError */
  mustStay(id: MessageId): void {
    if (!this.#moving.has(id)) return
    throw new RefusalError(
      'unavailable',
      'id',
      'This mail is being handed to another node at this moment.',
      'Try again in a few seconds.',
    )
  }

  /**
   * Who decides about the mail of an owner that is gone: the living holder of highest rank, this
   * node perhaps; null when nobody in reach has its content.
   */
  taker({ row }: HeldEntry): NodeId | null {
    const { quarantine, share, nodes } = this.#deps
    const { id: here } = quarantine.node
    const living = row.holders
      .map((node) => node.id)
      .filter((node) => node !== here && nodes.absence(node).standing === 'here')
    if (share.has(row.id)) living.push(here)
    return nodes.ranked(row.id, living)[0] ?? null
  }

  /** A node says what it has of a mail. Had it owned that before, a doubt about it ends. */
  spoke(id: MessageId, from: NodeId): void {
    if (this.#deps.quarantine.doubtOf(id) === from) this.#spoke.set(id, from)
  }

  /** @throws StoreError */
  #endDoubts(): void {
    const { quarantine, nodes, note } = this.#deps
    for (const [id, from] of this.#spoke) {
      if (!nodes.hasReadAll(from)) continue
      this.#spoke.delete(id)
      if (quarantine.endDoubt(id, from)) note(id, null, RESOLVED)
    }
  }

  /** Since when its owner may have released it without that being known here; null: it has not. */
  doubtSince({ row, perhaps }: HeldEntry): number | null {
    const { quarantine, nodes, patience } = this.#deps
    const { id: here } = quarantine.node
    const { standing, refusedSinceMs, lastContactMs } = nodes.absence(row.owner.id)
    if (standing === 'left') return null
    const isNamed = row.holders.some((node) => node.id === here) || perhaps.includes(here)
    // Before it told of the mail it told of no claim, and without that it enqueued nothing.
    const wasAsked = isNamed || !quarantine.isOwnersWord(row.id)
    const isSure =
      standing === 'confirmed' &&
      refusedSinceMs !== null &&
      lastContactMs !== null &&
      refusedSinceMs - lastContactMs <= patience.takeoverMs &&
      nodes.hasReadAll(row.owner.id) &&
      wasAsked
    return isSure ? null : (lastContactMs ?? row.heldMs)
  }

  /**
   * Makes this node the owner of a mail of which it has the content, when its owner is gone, for a
   * release (`anyway`: also when it could arrive twice) or a deletion.
   * @throws RefusalError doubtful; unavailable while the owner may live; StoreError
   */
  takeFor(
    entry: HeldEntry,
    ask: { readonly kind: 'release' | 'delete'; readonly anyway: boolean },
  ) {
    const { owner } = entry.row
    const { standing } = this.#deps.nodes.absence(owner.id)
    const isGone = standing === 'confirmed' || standing === 'removed' || standing === 'left'
    if (standing === 'here') throw answers(owner.name)
    if (!isGone && !ask.anyway) {
      throw new RefusalError(
        'unavailable',
        'id',
        `This mail waits for ${owner.name}.`,
        `${owner.name} decides about it when it answers.`,
      )
    }
    const doubtMs = this.doubtSince(entry)
    const isAsked = ask.anyway || ask.kind === 'delete' || standing === 'removed'
    if (doubtMs !== null && !isAsked) throw doubtful(owner.name, doubtMs)
    this.#take(entry, doubtMs, isGone ? standing : 'anyway')
  }

  // ---- leaving ----

  /**
   * Own mails that are still to be moved, and those of others of which this node has the only
   * second body while somebody else could have it.
   */
  heldToMove(): number {
    const { quarantine, nodes } = this.#deps
    const { id: here } = quarantine.node
    const staying = nodes.staying()
    return quarantine.read(
      (list) => list.countWanted(here) + (staying.length < 2 ? 0 : list.countSecond(here, staying)),
    )
  }

  /** Hands own mail to holders; again until `heldToMove` is 0. Never rejects. */
  async moveHeld(): Promise<void> {
    if (this.#isMoving) return
    this.#isMoving = true
    try {
      await this.#moveSome()
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#deps.observer.emit('store.failed', { cause: messageOf(error) })
    } finally {
      this.#isMoving = false
    }
  }

  async #moveSome(): Promise<void> {
    const { quarantine, nodes } = this.#deps
    const { id: here } = quarantine.node
    const staying = nodes.staying()
    const asked = new Map<NodeId, { readonly id: MessageId; readonly version: string }[]>()
    let after = ''
    for (;;) {
      const ids = quarantine.read((list) => list.withBody(here, after, STEP_ROWS))
      for (const id of ids) {
        const entry = quarantine.one(id)
        // What is released here goes out from here.
        if (entry === null || isUnsent(entry)) continue
        const has = entry.row.holders
          .map((node) => node.id)
          .filter((node) => staying.includes(node))
        const [to] = nodes.ranked(id, has)
        if (to === undefined) continue
        const some = asked.get(to) ?? []
        some.push({ id, version: quarantine.versionOf(id) })
        asked.set(to, some)
      }
      after = ids.at(-1) ?? ''
      if (ids.length < STEP_ROWS) break
    }
    for (const [to, some] of asked) {
      for (let from = 0; from < some.length; from += MOVED_AT_ONCE) {
        await this.#hand(to, some.slice(from, from + MOVED_AT_ONCE))
      }
    }
  }

  async #hand(
    to: NodeId,
    mails: readonly { readonly id: MessageId; readonly version: string }[],
  ): Promise<void> {
    const { nodes, quarantine } = this.#deps
    const still = mails.filter(({ id, version }) => quarantine.versionOf(id) === version)
    for (const { id } of still) this.#moving.add(id)
    try {
      // Its row says so here as soon as it has come; who decides before that is told.
      await nodes.ask(to, TAKE, { mails: still })
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
    } finally {
      for (const { id } of still) this.#moving.delete(id)
    }
  }

  /** `held.take`: the owner gives mails up; what is here as it says is this node's from now on. */
  async answerTake(value: unknown, from: NodeId): Promise<unknown> {
    const { quarantine, share } = this.#deps
    const mails = readMails(value)
    const taken = quarantine.together(() =>
      mails.flatMap(({ id, version }) => {
        const entry = quarantine.one(id)
        if (entry === null || !share.has(id) || entry.row.owner.id !== from) return []
        if (quarantine.versionOf(id) !== version) return []
        quarantine.takeOver(id, { hasBody: true, doubt: null })
        return [entry]
      }),
    )
    for (const entry of taken) this.#own(entry, null, 'moved')
    if (taken.length > 0) this.#deps.taken()
    return { taken: taken.map(({ row }) => row.id) }
  }

  // ---- steps ----

  #plan(delayMs: number): void {
    if (this.#stopped) return
    this.#timer = this.#deps.clock.after(delayMs, () =>
      this.#plan(this.#step() ? NEXT_STEP_MS : STEP_MS),
    )
  }

  /** True when there is more of it. */
  #step(): boolean {
    const { quarantine, nodes, clock, observer, patience } = this.#deps
    try {
      this.#endDoubts()
      let isMore = false
      let isTaken = false
      for (const owner of this.#everyOwner()) {
        if (owner === quarantine.node.id) continue
        const { standing, refusedSinceMs } = nodes.absence(owner)
        const isDue =
          standing === 'confirmed' &&
          clock.wallMs() - (refusedSinceMs ?? clock.wallMs()) >= patience.adoptConfirmedMs
        if (!isDue && standing !== 'removed' && standing !== 'left') continue
        const after = this.#lookedTo.get(owner) ?? ''
        const ids = quarantine.read((list) => list.withBody(owner, after, STEP_ROWS))
        this.#lookedTo.set(owner, ids.length < STEP_ROWS ? '' : (ids.at(-1) ?? ''))
        const taken = ids.filter((id) => this.#takeUnasked(id, standing))
        isTaken ||= taken.length > 0
        // Where nothing can be taken there is no hurry to look at the rest.
        isMore ||= taken.length > 0 && ids.length === STEP_ROWS
      }
      if (isTaken) this.#deps.taken()
      return isMore
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      observer.emit('store.failed', { cause: messageOf(error) })
      return false
    }
  }

  #everyOwner(): readonly NodeId[] {
    this.#owners ??= this.#deps.quarantine.read((list) => list.owners())
    return this.#owners
  }

  #takeUnasked(id: MessageId, standing: 'confirmed' | 'removed' | 'left'): boolean {
    const { quarantine } = this.#deps
    const entry = quarantine.one(id)
    if (entry === null || this.taker(entry) !== quarantine.node.id) return false
    const doubtMs = this.doubtSince(entry)
    // An operator said of a removed one that it is gone, and was told what that may cost.
    if (doubtMs !== null && standing === 'confirmed') return false
    this.#take(entry, doubtMs, standing)
    return true
  }

  #take(entry: HeldEntry, doubtMs: number | null, how: How): void {
    const doubt = doubtMs === null ? doubtOfClaims(entry, how) : { sinceMs: doubtMs, places: null }
    this.#deps.quarantine.takeOver(entry.row.id, { hasBody: true, doubt })
    this.#own(entry, doubt, how)
  }

  #own({ row: { id, owner }, copies }: HeldEntry, doubt: TakeoverDoubt | null, how: How): void {
    const { share, observer, note } = this.#deps
    share.owned(id)
    observer.emit('held.taken', { message: id, why: how })
    const ofAll =
      doubt === null || doubt.places !== null
        ? ''
        : `; it may have been released there since ${isoTime(doubt.sinceMs)}`
    note(id, null, `${TOLD[how]} ${owner.name}${ofAll}`)
    for (const { place, address } of copies) {
      if (doubt?.places?.includes(place) !== true) continue
      note(id, address, `${owner.name} had released it and may have sent it: it may arrive twice`)
    }
  }

  /** Rows came over own ones: what was decided here is told to their owner, this node perhaps. */
  #yield(): void {
    const { quarantine, observer } = this.#deps
    const { others, own } = quarantine.tellFormer()
    if (others > 0) observer.emit('held.yielded', { recipients: others })
    // At once: the next click must not find these undecided.
    if (own > 0) this.#deps.taken()
  }
}

function isUnsent({ copies }: HeldEntry): boolean {
  return copies.some(isOpenRelease)
}

function isOpenRelease({ claim, enqueuedMs }: HeldCopy): boolean {
  return claim?.kind === 'release' && enqueuedMs === null
}

/**
 * Of an owner that has done nothing unknown here: it may have died between its queue and its word
 * of that. Its claim is known, so it may have had an effect; who left has told every effect.
 */
function doubtOfClaims({ copies }: HeldEntry, how: How): TakeoverDoubt | null {
  const open = how === 'confirmed' ? copies.filter(isOpenRelease) : []
  if (open.length === 0) return null
  const sinceMs = Math.min(...open.map(({ claim }) => claim?.atMs ?? 0))
  return { sinceMs, places: open.map(({ place }) => place) }
}

function answers(owner: string): RefusalError {
  return new RefusalError(
    'unavailable',
    'id',
    `${owner} decides about this mail, and answers some nodes.`,
    `Ask again, or on ${owner}.`,
  )
}

function doubtful(owner: string, sinceMs: number): RefusalError {
  return new RefusalError(
    'doubtful',
    'id',
    `This mail may have been released on ${owner} since ${isoTime(sinceMs)}, and ${owner} cannot be asked.`,
    'Release it anyway when it may arrive twice; or wait until that node is back.',
  )
}

/** @throws RefusalError invalid */
function readMails(
  value: unknown,
): readonly { readonly id: MessageId; readonly version: string }[] {
  const { mails } = (typeof value === 'object' && value !== null ? value : {}) as {
    readonly mails?: unknown
  }
  if (Array.isArray(mails) && mails.length <= MOVED_AT_ONCE) {
    return mails.map((raw: { readonly id?: unknown; readonly version?: unknown } | null) => {
      const id = typeof raw?.id === 'string' ? parseMessageId(raw.id) : null
      if (id === null || typeof raw?.version !== 'string') throw invalid()
      return { id, version: raw.version }
    })
  }
  throw invalid()
}

function invalid(): RefusalError {
  return new RefusalError(
    'invalid',
    'mails',
    'A question of a peer is not valid: mails.',
    'Both nodes should run the same version, or one version apart.',
  )
}
