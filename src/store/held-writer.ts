/**
 * How this node writes the rows of held mail: in parts, each with a version of its own that only
 * the owner of the mail moves on, and the clicks that wait for an owner.
 */
import type { Clock } from '../base/clock.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { OwnedRow } from '../config/merge.ts'
import type { HeldMail } from './bodies.ts'
import {
  COPIES_MAX,
  type CopyValue,
  type HeldValue,
  heldKey,
  type PendingValue,
  readHeldValue,
} from './held-row.ts'
import type { SharedRows } from './shared.ts'

/** A decided message without a body is shown this long on its page, then every node forgets it. */
const DECIDED_MS = 7 * 86_400_000

/** Who else has the body of a message, or may have it. */
export type Holding = { readonly holders: readonly NodeId[]; readonly perhaps: readonly NodeId[] }

export const NOBODY: Holding = { holders: [], perhaps: [] }

export class HeldWriter {
  readonly #rows: SharedRows
  readonly #clock: Clock
  readonly #node: NodeId
  readonly #ownerOf: (id: MessageId) => NodeId | null

  /** `node` is this one; `ownerOf` says who owns a message, null of one that is not known. */
  constructor(
    rows: SharedRows,
    deps: {
      readonly clock: Clock
      readonly node: NodeId
      readonly ownerOf: (id: MessageId) => NodeId | null
    },
  ) {
    this.#rows = rows
    this.#clock = deps.clock
    this.#node = deps.node
    this.#ownerOf = deps.ownerOf
  }

  /** Inside a transaction. What was said before stays, but what another node said for this one. */
  write({ row, envelope, places, term }: HeldMail, owner: NodeId, holding: Holding): void {
    const before = this.#rows.owned('held', row.id)
    if (before !== null && (owner !== this.#node || !isForeword(before))) return
    // Also one that was decided and forgotten: the spool may be older than the database.
    if (before === null && this.#rows.rowsOf([`held/${row.id}`]).length > 0) return
    const { id, recipients, ...facts } = row
    const copies = places.map((place) => ({
      place,
      address: envelope.recipients[place]?.address ?? '',
    }))
    for (let part = 0; part === 0 || part * COPIES_MAX < copies.length; part++) {
      const value: HeldValue = {
        owner,
        ...(part === 0 ? { row: facts, ...withoutEmpty(holding) } : {}),
        copies: copies.slice(part * COPIES_MAX, (part + 1) * COPIES_MAX),
      }
      const version = [term ?? 1, owner === this.#node ? 1 : 0] as const
      this.#rows.put('held', heldKey(id, part), version, JSON.stringify(value), 'postern', null)
    }
  }

  /** As `change`, and nothing when this node is the owner no more. */
  own(
    id: MessageId,
    change: (copy: CopyValue) => CopyValue,
    facts: (first: HeldValue) => HeldValue = (first) => first,
  ): void {
    if (this.#ownerOf(id) === this.#node) this.change(id, change, facts, null)
  }

  /** Writes the rows of a message that differ after the change; all of them to a new owner. */
  change(
    id: MessageId,
    change: (copy: CopyValue) => CopyValue,
    facts: (first: HeldValue) => HeldValue,
    taker: NodeId | null,
  ): void {
    this.#rows.transact(() => {
      const parts = this.parts(id)
      const [first] = parts
      if (first === undefined) return
      const changed = parts.map(({ value }) => value.copies.map(change))
      const head = facts(first.value)
      const untilMs = forgottenAt(changed.flat(), head.bodyGoneMs ?? null)
      for (const [part, { version, value, untilMs: before }] of parts.entries()) {
        const next: HeldValue = {
          ...(part === 0 ? tidied(head) : value),
          owner: taker ?? value.owner,
          copies: changed[part] ?? [],
        }
        const text = JSON.stringify(next)
        if (text === JSON.stringify(value) && untilMs === before) continue
        const from = taker === null ? version : ([version[0] + 1, 0] as const)
        this.#putNext('held', heldKey(id, part), from, text, 'postern', untilMs)
      }
    })
  }

  /** What waits for the owner `value.to`, written by this node. */
  leave(id: MessageId, place: number, value: PendingValue): void {
    const key = `${id}/${place}/${this.#rows.writer}`
    const before = this.#rows.owned('pending', key)?.version ?? [1, 0]
    this.#putNext('pending', key, before, JSON.stringify(value), value.by, null)
  }

  #putNext(
    kind: string,
    key: string,
    [term, revision]: readonly [term: number, revision: number],
    value: string | null,
    author: string,
    untilMs: number | null,
  ): void {
    this.#rows.put(kind, key, [term, revision + 1], value, author, untilMs)
  }

  /** Clicks that a claim has answered; the tombstone goes when the claim is forgotten at the latest. */
  answer(keys: readonly string[]): void {
    for (const key of keys) {
      const row = this.#rows.owned('pending', key)
      if (row === null || row.value === null) continue
      this.#putNext('pending', key, row.version, null, 'postern', this.#clock.wallMs() + DECIDED_MS)
    }
  }

  /** The rows of a message in order; empty when it is not known. */
  parts(id: MessageId) {
    const parts = []
    for (let part = 0; ; part++) {
      const row = this.#rows.owned('held', heldKey(id, part))
      const value = row?.value === undefined || row.value === null ? null : readHeldValue(row.value)
      if (row === null || value === null) return parts
      parts.push({ version: row.version, untilMs: row.untilMs, value })
    }
  }
}

/** Null while something is undecided, or the body may still be wanted. */
function forgottenAt(copies: readonly CopyValue[], bodyGoneMs: number | null): number | null {
  if (bodyGoneMs === null || copies.some(({ claim }) => claim === undefined)) return null
  return Math.max(...copies.map(({ claim }) => claim?.atMs ?? 0)) + DECIDED_MS
}

/** A holder wrote it for an owner that had not spoken yet. */
export function isForeword({ version }: OwnedRow): boolean {
  return version[1] === 0
}

/** A row says nothing of what there is none. */
function tidied({ holders, perhaps, ...rest }: HeldValue): HeldValue {
  return { ...rest, ...withoutEmpty({ holders: holders ?? [], perhaps: perhaps ?? [] }) }
}

function withoutEmpty({ holders, perhaps }: Holding): Partial<Holding> {
  return {
    ...(holders.length === 0 ? {} : { holders }),
    ...(perhaps.length === 0 ? {} : { perhaps }),
  }
}
