/** Not written yet. */
import type { Inspector } from './look.ts'

export const campaign: Inspector = { name: 'campaign', inspect: () => [] }
