/**
 * Numbers that the nodes tell each other within about a second, and forget: counts of a window,
 * what was learnt of a next hop. A limit holds for all nodes by them, as well as they hear.
 */

/** Numbers of one kind, by key. Each node has one of its own for a key; a later one replaces it. */
export interface Topic {
  /** What this node says of `key`, for `restMs` from now. */
  tell(key: string, value: number, restMs: number): void
  /** What the others said of it, added up. */
  sum(key: string): number
  /** The least that anybody said of it, this node too; null: nobody has said anything. */
  least(key: string): number | null
  /** Ms until all that those of the others said of it who live is over; 0: nothing. */
  restMs(key: string): number
  /** Called when another node has said something of a key; `value` is what. */
  onHeard(listener: (key: string, value: number) => void): void
}

export interface Tally {
  /** The same name, the same topic. */
  topic(name: string): Topic
  /** Nodes that are alive and take part in the work, this one included; at least 1. */
  living(): number
  /** Of all that should, so much is in sight: above 0, at most 1. */
  share(): number
  /** Where this node stands among the living for `key`: all agree on the order; 0 comes first. */
  place(key: string): number
}

/** A node that is alone: nobody says anything. */
export const ALONE: Tally = {
  topic: () => ({
    tell: () => {},
    sum: () => 0,
    least: () => null,
    restMs: () => 0,
    onHeard: () => {},
  }),
  living: () => 1,
  share: () => 1,
  place: () => 0,
}
