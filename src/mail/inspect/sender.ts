/** Not written yet. */
import type { Inspector } from './look.ts'

export const sender: Inspector = { name: 'sender', inspect: () => [] }
