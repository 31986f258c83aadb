/** What is said of a copy that several owners may have sent: in doubt, counted once, and ended. */
import type { Claim } from '../message/rows.ts'
import type { CopyValue, Former, HeldValue } from './held-row.ts'

/** What an owner that is gone may have sent since `sinceMs`, wall ms: all of it, or some copies. */
export type TakeoverDoubt = { readonly sinceMs: number; readonly places: readonly number[] | null }

/** A recipient whose copy another owner has sent too, or may have. */
export type Doubled = {
  readonly address: string
  /** As a possible duplicate: when it went out here in doubt, or as soon as it does. */
  readonly isCounted: boolean
}

/** What the owner of a copy does not know of a former one. */
export type Unknown = { readonly place: number; readonly claim: Claim; readonly word: Former }

/** A copy after what is told of a former owner; `doubled` null: that was known, or doubles nothing. */
export function afterWord(
  copy: CopyValue,
  { word, claim, nowMs }: { readonly word: Former; readonly claim: Claim; readonly nowMs: number },
): { readonly copy: CopyValue; readonly doubled: Doubled | null } {
  const { address, enqueuedMs, formerMs } = copy
  if (word === 'claimed' || formerMs === claim.atMs) return { copy, doubled: null }
  const { countedMs, ...rest } = copy
  const isCounted = countedMs !== undefined
  if (word === 'sent') {
    return {
      copy: { enqueuedMs: nowMs, ...rest, formerMs: claim.atMs },
      doubled: enqueuedMs === undefined ? null : { address, isCounted },
    }
  }
  if (isSame(copy.claim, claim) || isCounted) return { copy, doubled: null }
  if (enqueuedMs !== undefined) {
    return { copy: { ...copy, countedMs: nowMs }, doubled: { address, isCounted: false } }
  }
  if (copy.doubtMs !== undefined) return { copy, doubled: null }
  return { copy: { ...copy, doubtMs: claim.atMs }, doubled: { address, isCounted: true } }
}

/** No takeover ends a doubt; of two doubts no single word is the end. */
export function doubtedFor(
  doubt: TakeoverDoubt | null,
  { doubtMs, doubtOf, ...first }: HeldValue,
  wasDoubted: boolean,
): HeldValue {
  const ofAll = doubt?.places === null ? [doubt.sinceMs] : []
  const all = [...(doubtMs === undefined ? [] : [doubtMs]), ...ofAll]
  const ends = doubt === null ? doubtOf : wasDoubted ? undefined : first.owner
  return {
    ...first,
    ...(all.length === 0 ? {} : { doubtMs: Math.min(...all) }),
    ...(ends === undefined ? {} : { doubtOf: ends }),
  }
}

/**
 * What the last row had decided, and the row now does not know: a release counts before all. Another
 * owner finds by itself what has expired. `isOwn`: the last row was of this node, which knows all
 * that it did; of others a release that was claimed may have gone out.
 */
export function unknownTo(
  { owner, copies }: HeldValue,
  last: HeldValue,
  isOwn: boolean,
): readonly Unknown[] {
  return last.copies.flatMap(({ place, claim, enqueuedMs }): readonly Unknown[] => {
    if (claim === undefined || (claim.kind === 'expire' && owner !== last.owner)) return []
    const theirs = copies.find((copy) => copy.place === place)
    const isKnown = isSame(theirs?.claim, claim)
    if (enqueuedMs !== undefined && !(isKnown && theirs?.enqueuedMs === enqueuedMs)) {
      return [{ place, claim, word: 'sent' }]
    }
    const isRelease = claim.kind === 'release'
    if (!isOwn) return isRelease && !isKnown ? [{ place, claim, word: 'perhaps' }] : []
    const isOver = isRelease && theirs?.claim?.kind !== 'release'
    return theirs?.claim === undefined || isOver ? [{ place, claim, word: 'claimed' }] : []
  })
}

function isSame(one: Claim | undefined, two: Claim): boolean {
  return one?.by === two.by && one.atMs === two.atMs
}
