/** Questions to the owners of held mail. Those of one moment go together: a hundred are one trip. */
import { type RefusalCode, RefusalError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import { fieldsOf } from '../base/raw.ts'
import type { Calls } from '../cluster/contract.ts'
import type { Claim } from '../message/rows.ts'
import { isClaim } from '../store/held-row.ts'
import { ASKS_MAX, DECIDE, type HeldAsk } from './held-decisions.ts'

/** An owner that does not answer in this time gets a note instead. */
const TIMEOUT_MS = 5_000
const CODES: ReadonlySet<unknown> = new Set<RefusalCode>([
  'invalid',
  'notFound',
  'conflict',
  'unavailable',
  'doubtful',
])

type Copies = readonly { readonly place: number; readonly claim: Claim }[]

/** How the copies stand; null: the owner did not answer. @throws RefusalError as the owner says */
export type AskOwner = (owner: NodeId, ask: HeldAsk) => Promise<Copies | null>

type Waiting = {
  readonly ask: HeldAsk
  readonly resolve: (copies: Copies | null) => void
  readonly reject: (refusal: RefusalError) => void
}

export function ownersAsked(calls: Pick<Calls, 'ask'>): AskOwner {
  const waiting = new Map<NodeId, Waiting[]>()

  async function send(owner: NodeId, some: readonly Waiting[]): Promise<void> {
    let answers: readonly unknown[]
    try {
      const asks = some.map(({ ask }) => ask)
      answers = listOf(await calls.ask(owner, DECIDE, { asks }, TIMEOUT_MS))
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
      answers = []
    }
    for (const [index, { resolve, reject }] of some.entries()) {
      const answer = readAnswer(answers[index])
      if (answer instanceof RefusalError) reject(answer)
      else resolve(answer)
    }
  }

  return (owner, ask) =>
    new Promise((resolve, reject) => {
      const others = waiting.get(owner)
      if (others !== undefined) {
        others.push({ ask, resolve, reject })
        return
      }
      waiting.set(owner, [{ ask, resolve, reject }])
      queueMicrotask(() => {
        const all = waiting.get(owner) ?? []
        waiting.delete(owner)
        for (let from = 0; from < all.length; from += ASKS_MAX) {
          void send(owner, all.slice(from, from + ASKS_MAX))
        }
      })
    })
}

/** @throws RefusalError unavailable */
export function readSize(value: unknown): number {
  const sizeBytes = fieldsOf(value)['sizeBytes']
  if (Number.isSafeInteger(sizeBytes) && (sizeBytes as number) >= 0) return sizeBytes as number
  throw new RefusalError(
    'unavailable',
    'id',
    'The owner of this mail did not say how long it is.',
    'Try again.',
  )
}

function listOf(value: unknown): readonly unknown[] {
  const { answers } = fieldsOf(value)
  return Array.isArray(answers) ? answers : []
}

/** Null: no answer of ours. */
function readAnswer(raw: unknown): Copies | RefusalError | null {
  const { copies, refusal } = fieldsOf(raw)
  if (Array.isArray(copies)) {
    return copies.flatMap((copy) => {
      const { place, claim } = fieldsOf(copy)
      return Number.isSafeInteger(place) && isClaim(claim)
        ? [{ place: place as number, claim }]
        : []
    })
  }
  const { code, field, message, advice } = fieldsOf(refusal)
  if (!CODES.has(code) || typeof message !== 'string' || typeof advice !== 'string') return null
  return new RefusalError(
    code as RefusalCode,
    typeof field === 'string' ? field : null,
    message,
    advice,
  )
}
