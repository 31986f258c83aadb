/** Not written yet. */
import type { Inspector } from './look.ts'

export const text: Inspector = { name: 'text', inspect: () => [] }
