/** Not written yet. */
import type { Inspector } from './look.ts'

export const impersonation: Inspector = { name: 'impersonation', inspect: () => [] }
