/** When to try again and when to give up (RFC 5321 section 4.5.4.1). Pure. */
import { assert } from '../../base/errors.ts'
import type { Random } from '../../base/random.ts'

/** How far a recipient has come: attempts made so far, and ms since the message was accepted. */
export type Progress = { readonly attempts: number; readonly ageMs: number }

/** First and longest wait, and the age at which the message goes back, all in ms. */
export type Waits = {
  readonly firstMs: number
  readonly longestMs: number
  readonly expireMs: number
}

/** Doublings after which any sensible first wait has passed the longest one. */
const DOUBLINGS_MAX = 30
/** One of so many parts of a delay is added at random. */
const SPREAD_PARTS = 8

/** No delay is longer than this. */
export function longestDelayMs(longestMs: number): number {
  return longestMs + Math.ceil(longestMs / SPREAD_PARTS)
}

/**
 * Delay in ms before the next attempt, at least 1; null to give up. The delay doubles from the
 * first wait to the longest. Up to one eighth is added at random, so that a restart or an outage
 * does not make all messages due at once. The last attempt falls on the expiry itself: a message
 * never goes back untried for the length of one wait.
 */
export function nextDelayMs(progress: Progress, waits: Waits, random: Random): number | null {
  assert(progress.attempts >= 1, 'the first attempt is not delayed')
  assert(waits.firstMs > 0 && waits.firstMs <= waits.longestMs, 'waits grow')
  // The wall clock may have been set back since the message came.
  const leftMs = waits.expireMs - Math.max(0, progress.ageMs)
  if (leftMs <= 0) return null
  const doubledMs = waits.firstMs * 2 ** Math.min(progress.attempts - 1, DOUBLINGS_MAX)
  const delayMs = Math.min(doubledMs, waits.longestMs)
  const spreadMs = random.below(Math.ceil(delayMs / SPREAD_PARTS))
  return Math.max(1, Math.min(delayMs + spreadMs, leftMs))
}
