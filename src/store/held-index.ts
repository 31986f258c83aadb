/**
 * The tables that the list of held mail is read from: index, copies and waiting clicks of all
 * nodes, kept in step with the shared rows of the kinds `held` and `pending`.
 */
import type { NodeId } from '../base/ids.ts'
import type { SharedState } from '../config/merge.ts'
import { foldedOrNull } from './conditions.ts'
import type { StoreDatabase } from './db.ts'
import { unknownTo } from './held-doubt.ts'
import {
  type Former,
  type HeldFacts,
  type HeldValue,
  readHeldKey,
  readHeldValue,
  readPendingKey,
  readPendingValue,
} from './held-row.ts'
import type { Projection } from './shared.ts'

const VERSION = 2
/** As the column `sent` of what is remembered has them. */
export const WORDS: readonly Former[] = ['claimed', 'sent', 'perhaps']

/**
 * `node`: this one, which remembers what it had decided when it is the owner no more, or when its
 * disk went back and rows that it had written before that come over those of after. Of other owners
 * it remembers what they had sent, or had claimed to release, when the next one does not know that:
 * the disk of an owner that died may have gone back before its end.
 */
export function heldProjection({ sqlite }: StoreDatabase, node: NodeId): Projection {
  const put = sqlite.query<null, (string | number | null)[]>(
    'INSERT OR REPLACE INTO held VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)',
  )
  const putCopy = sqlite.query<null, (string | number | null)[]>(
    'INSERT OR REPLACE INTO held_copy VALUES (?,?,?,?,?,?,?)',
  )
  // A part may come before the first row of its message, and change after it.
  const count = sqlite.query<null, [string]>(
    `UPDATE held SET
       undecided = (SELECT count(*) FROM held_copy AS c WHERE c.id = held.id AND c.kind IS NULL),
       decided_ms = (SELECT max(decided_ms) FROM held_copy AS c WHERE c.id = held.id)
     WHERE id = ?`,
  )
  const remove = sqlite.query<null, [string]>('DELETE FROM held WHERE id = ?')
  const removeCopies = sqlite.query<null, [string]>('DELETE FROM held_copy WHERE id = ?')

  const remember = sqlite.query<null, (string | number)[]>(
    'INSERT OR REPLACE INTO held_former VALUES (?,?,?,?,?,?)',
  )

  function apply(key: string, state: SharedState, before: SharedState | null): void {
    const value = textOf(state)
    if (value === null) return forget(key)
    const named = readHeldKey(key)
    const held = readHeldValue(value)
    if (named === null || held === null) return
    const { id, part } = named
    for (const { place, address, claim, enqueuedMs } of held.copies) {
      const decided = [claim?.kind ?? null, claim?.by ?? null, claim?.atMs ?? null]
      putCopy.run(id, place, address, ...decided, enqueuedMs ?? null)
    }
    if (part === 0 && held.row !== undefined)
      put.run(...columnsOf(id, termOf(state), held, held.row))
    count.run(id)
    const last = before === null ? null : readHeldValue(textOf(before) ?? '')
    if (before === null || last === null) return
    const isTaken = termOf(state) > termOf(before) && held.owner !== node
    const isOwn = last.owner === node
    if (!isOwn && !isTaken) return
    for (const { place, claim, word } of unknownTo(held, last, isOwn)) {
      remember.run(id, place, claim.kind, claim.by, claim.atMs, WORDS.indexOf(word))
    }
  }

  function forget(key: string): void {
    const named = readHeldKey(key)
    // All rows of a message are forgotten at the same time.
    if (named === null || named.part > 0) return
    remove.run(named.id)
    removeCopies.run(named.id)
  }

  return {
    version: VERSION,
    clear() {
      sqlite.run('DELETE FROM held')
      sqlite.run('DELETE FROM held_copy')
    },
    apply,
    forget,
  }
}

function columnsOf(id: string, term: number, value: HeldValue, row: HeldFacts) {
  const { owner, bodyGoneMs, holders, perhaps, doubtMs } = value
  return [
    id,
    owner,
    row.heldMs,
    row.expiresMs,
    row.sender,
    row.subject,
    row.from,
    foldedOrNull(row.subject),
    foldedOrNull(row.from),
    row.clientIp,
    row.sizeBytes,
    row.score,
    row.rules.length === 0 ? '' : ` ${row.rules.join(' ')} `,
    row.unknowns.length,
    JSON.stringify({ findings: row.findings, unknowns: row.unknowns }),
    0,
    null,
    bodyGoneMs ?? null,
    term,
    nodesText(holders),
    nodesText(perhaps),
    doubtMs ?? null,
  ]
}

/** A space on both sides of each, so that one is found by its text. */
function nodesText(nodes: readonly NodeId[] | undefined): string {
  return nodes === undefined || nodes.length === 0 ? '' : ` ${nodes.join(' ')} `
}

export function nodesOf(text: string): readonly NodeId[] {
  return text === '' ? [] : (text.trim().split(' ') as NodeId[])
}

export function pendingProjection({ sqlite }: StoreDatabase): Projection {
  const put = sqlite.query<null, (string | number | null)[]>(
    'INSERT OR REPLACE INTO held_pending VALUES (?,?,?,?,?,?,?,?,?)',
  )
  const remove = sqlite.query<null, [string]>('DELETE FROM held_pending WHERE key = ?')
  return {
    version: VERSION,
    clear() {
      sqlite.run('DELETE FROM held_pending')
    },
    apply(key, state) {
      const value = textOf(state)
      const named = readPendingKey(key)
      const pending = value === null ? null : readPendingValue(value)
      if (named === null || pending === null || state.shape !== 'owned') {
        remove.run(key)
        return
      }
      const { kind, by, atMs, to, former } = pending
      put.run(named.id, named.place, key, kind, by, atMs, to, state.stamp, former ?? null)
    },
    forget(key) {
      remove.run(key)
    },
  }
}

function termOf(state: SharedState): number {
  return state.shape === 'owned' ? state.version[0] : 1
}

function textOf(state: SharedState): string | null {
  return state.shape === 'owned' ? state.value : null
}
