/** Not written yet. */
import type { Inspector } from './look.ts'

export const yara: Inspector = { name: 'yara', inspect: () => [] }
