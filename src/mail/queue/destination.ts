/** What is ready for one next hop, in order. */
import type { Message } from '../../store/queued.ts'

/** What is planned for a message; null: void. `tasks` of it did not begin. */
export type Plan = { message: Message | null; tasks: number }

/** What is to be done later, of any next hops. */
export type Wait = {
  readonly plan: Plan
  readonly indexes: readonly number[]
  readonly dueMono: number
}

/** What may be done now, of one next hop. */
export type Task = {
  readonly plan: Plan
  readonly indexes: readonly number[]
  readonly key: string
}

/** One next hop: what is ready for it, and what runs. */
export type Destination = {
  readonly key: string
  readonly ready: Task[]
  head: number
  active: number
}

/** The first that is still wanted; null: none is left. */
export function nextOf(destination: Destination): Task | null {
  for (;;) {
    const task = destination.ready[destination.head]
    if (task === undefined) {
      destination.ready.length = 0
      destination.head = 0
      return null
    }
    if (task.plan.message !== null) return task
    pass(destination)
  }
}

/** The first is done with. */
export function pass(destination: Destination): void {
  destination.head += 1
  if (destination.head <= 1_024) return
  destination.ready.splice(0, destination.head)
  destination.head = 0
}
