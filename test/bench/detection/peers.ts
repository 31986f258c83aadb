/** What the bench asks of every judge of mail, and what starting one takes. */
import type { Labelled } from './set.ts'

export type Judged = {
  readonly score: number
  readonly rules: readonly string[]
  /** What each of the rules weighed, where the peer says it. */
  readonly weights?: readonly number[]
}

export type Peer = {
  readonly name: string
  readonly version: string
  /** In the order of the mails. */
  judge(mails: readonly Labelled[]): Promise<readonly Judged[]>
  stop(): Promise<void>
}

/** Runs `act` over all items, `width` at a time; the answers are in the order of the items. */
export async function eachAtATime<Item, Answer>(
  width: number,
  items: readonly Item[],
  act: (item: Item) => Promise<Answer>,
): Promise<Answer[]> {
  const answers: Answer[] = []
  let next = 0
  const lane = async (): Promise<void> => {
    for (;;) {
      const index = next
      next += 1
      const item = items[index]
      if (item === undefined) return
      answers[index] = await act(item)
    }
  }
  await Promise.all(Array.from({ length: width }, lane))
  return answers
}

const PATIENCE_MS = 60_000

/** @throws Error when nobody listens there in time */
export async function portOpen(port: number): Promise<void> {
  const until = performance.now() + PATIENCE_MS
  for (;;) {
    try {
      const socket = await Bun.connect({ hostname: '127.0.0.1', port, socket: { data: () => {} } })
      socket.end()
      return
    } catch (error) {
      if (performance.now() > until) throw error
      await Bun.sleep(100)
    }
  }
}
