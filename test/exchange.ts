/** Carries rows between the nodes of a test, as links do when they reach each other. */
import type { Room } from './rooms.ts'

/** `to` learns everything that `from` knows. */
export function carry(from: Room, to: Room): void {
  const { rows } = from.rows.read(0, new Map(), 1e9)
  to.rows.apply({
    peer: from.node.id,
    rows: JSON.parse(JSON.stringify(rows)),
    as: { kind: 'repair' },
  })
}

/** All of them know what one of them knows. */
export function meet(...rooms: readonly Room[]): void {
  for (let round = 0; round < 2; round++) {
    for (const from of rooms) for (const to of rooms) if (from !== to) carry(from, to)
  }
}
