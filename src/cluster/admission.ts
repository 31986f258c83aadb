/**
 * How a member shows that it is one to a node that does not know it: one that was restored from a
 * backup of before, or has not heard of the join yet. The rows by which it was let in prove
 * themselves: each is signed by who admitted it, back to the founder. So it brings its own.
 */
import { RefusalError, StoreError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { SharedRow } from '../config/merge.ts'
import type { SharedRows } from '../store/shared.ts'
import { readSharedRow } from '../store/shared-row.ts'
import type { Member } from './contract.ts'
import { MEMBER_KIND, MemberReader, type MemberRoster } from './roster.ts'

/** About 30 nodes, each let in by the next. Whoever has more is told of by others. */
export const ADMISSION_BYTES_MAX = 16 * 1024
const ROWS_MAX = 200

export class Admissions {
  readonly #roster: MemberRoster
  readonly #state: SharedRows

  constructor(roster: MemberRoster, state: SharedRows) {
    this.#roster = roster
    this.#state = state
  }

  /** The rows that prove this node a member; null when they are too many, or cannot be read. */
  mine(): Uint8Array | null {
    const { node } = this.#roster.self
    const names = [`${node}/self`]
    for (let at: NodeId | null = node; at !== null; at = this.#roster.get(at)?.admittedBy ?? null) {
      names.push(at, `${at}/standing`)
    }
    try {
      const rows = this.#state.rowsOf(names.map((key) => `${MEMBER_KIND}/${key}`))
      const body = new TextEncoder().encode(JSON.stringify({ rows }))
      return body.length > ADMISSION_BYTES_MAX ? null : body
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      return null
    }
  }

  /**
   * Makes the holder of `key` a member here, as another one is, when the rows in `body` prove it and
   * nothing that is known here speaks against it. Else nothing changes.
   */
  take(key: Uint8Array, body: Uint8Array): void {
    const rows = readRows(body)
    const claimed = new MemberReader(this.#roster.clusterId, () => {}).read(rows)
    const caller = [...claimed.values()].find((member) => isSame(member.exchange, key))
    const chain = caller === undefined ? null : this.#chainOf(caller, claimed)
    if (caller === undefined || chain === null) return
    // Of whom is known here the feeds tell, and nobody else.
    const strangers = chain.filter((node) => this.#roster.get(node) === null)
    const keys = strangers.flatMap((node) => [node, `${node}/self`, `${node}/standing`])
    const fresh = rows.filter((row) => row.kind === MEMBER_KIND && keys.includes(row.key))
    try {
      this.#roster.mayAdmit(caller)
      this.#state.apply({ peer: caller.node, rows: fresh, as: { kind: 'repair' } })
    } catch (error) {
      // It stays unknown, and is told so.
      if (!(error instanceof RefusalError) && !(error instanceof StoreError)) throw error
    }
  }

  /**
   * Who let whom in, up to the founder; null when it must not count. What a node signed that was
   * removed or has left is believed only where its rows came while it was a member.
   */
  #chainOf(caller: Member, claimed: ReadonlyMap<NodeId, Member>): readonly NodeId[] | null {
    if (caller.standing !== 'member') return null
    const chain: NodeId[] = []
    for (let at: Member | undefined = caller; at !== undefined; ) {
      const known = this.#roster.get(at.node)
      if (known !== null && (known.standing !== 'member' || !isSame(known.sign, at.sign)))
        return null
      chain.push(at.node)
      at = at.admittedBy === null ? undefined : claimed.get(at.admittedBy)
    }
    return chain
  }
}

/** The rows in a message of unknown origin; none when it is not such a message. */
function readRows(body: Uint8Array): readonly SharedRow[] {
  if (body.length > ADMISSION_BYTES_MAX) return []
  try {
    const raw: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
    const { rows } = (typeof raw === 'object' && raw !== null ? raw : {}) as { rows?: unknown }
    return Array.isArray(rows) && rows.length <= ROWS_MAX ? rows.map(readSharedRow) : []
  } catch {
    return []
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
